"""Who may come in, and under which limits."""

from stoker.admission.gate import Gate, Ticket

__all__ = ["Gate", "Ticket"]
