"""The benchmark: every number is a ratio to something measured in the same run on the same machine."""
