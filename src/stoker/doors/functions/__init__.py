"""Door: the Functions API (`/functions`, `/functions/{name}/call`, `/health`, `/stats`)."""

from stoker.doors.functions.door import FunctionsDoor as Door

__all__ = ["Door"]
