"""The process that answers sandboxes' questions for names: unprivileged, in an empty root, its own user."""
