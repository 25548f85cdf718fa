"""What the node tells of itself: events, counters, its log."""
