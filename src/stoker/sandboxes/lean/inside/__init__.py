"""What runs within the walls before a stranger's code does: the zygote, and each sandbox's first steps."""
