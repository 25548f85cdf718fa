"""The helper: the one process with privileges, which makes and ends sandboxes on packets of fixed shape."""
