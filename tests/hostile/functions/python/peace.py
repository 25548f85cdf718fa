"""What is no attack: the next call on the same node, and its neighbour."""

from __future__ import annotations

import time


def hello(event):
    return []


def work(event):
    """A little of everything a call does: waits, computes, writes."""
    time.sleep(0.005)
    with open("/dev/null", "w") as file:
        print(sum(range(20_000)), file=file)
    return []
