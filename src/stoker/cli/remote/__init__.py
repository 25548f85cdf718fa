"""What the command line asks of a node that runs, over HTTP."""
