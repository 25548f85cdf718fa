"""The same no-op function by other ways of running one."""
