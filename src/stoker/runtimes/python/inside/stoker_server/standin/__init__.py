"""A function in a folder of its own, as a real one is."""
