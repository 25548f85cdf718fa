"""Wing: in which language. One folder a runtime; `wire` is what they all speak."""
