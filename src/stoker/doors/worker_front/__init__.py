"""Door: the Worker Front protocol (`/execute`, `/configure`, `/clear`, `/prepare`)."""

from stoker.doors.worker_front.door import WorkerFront as Door

__all__ = ["Door"]
