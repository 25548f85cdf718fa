"""The server itself: one module for each way of running calls, and what they share."""
