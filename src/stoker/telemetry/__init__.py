"""What the node tells of itself: counters, its log."""
