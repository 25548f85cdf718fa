"""The life of a node on this machine: its port, its home, its daemon, its end."""
