"""What the probe tries, by what it is about, and the words it tells it in."""
