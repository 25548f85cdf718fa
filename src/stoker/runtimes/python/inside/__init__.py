"""What a sandbox is shown of this runtime: a server in the standard library of Python 3.8 and newer.

Nothing here is imported by the node.
"""
