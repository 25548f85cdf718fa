"""What is known of functions and invocations, on disk."""
