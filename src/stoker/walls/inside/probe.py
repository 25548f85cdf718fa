"""The probe's beginning: run as a program, or loaded once by a zygote and forked from it."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
_looking = __import__("stoker_probe.looking", fromlist=["serve"])
sys.path.pop(0)


def serve(channel_fd: int) -> None:
    """Answer questions on this descriptor until it is closed; never raises."""
    _looking.serve(channel_fd, channel_fd)


if __name__ == "__main__":
    # In a sandbox the channel is descriptor 3; anywhere else one talks to a program by its streams.
    _looking.serve(*((3, 3) if "--streams" not in sys.argv else (0, 1)))
