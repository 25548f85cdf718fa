"""The kernel, in one thin layer: one wrapper for each call, no retry in it, nothing inherited by exec."""
