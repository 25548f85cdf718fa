"""Stoker: a serverless worker node that runs functions, each within its own walls."""

__version__ = "0.1.0"
