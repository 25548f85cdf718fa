"""Wing: how work gets in. One folder a door, one HTTP listener for all of them."""
