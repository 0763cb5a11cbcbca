"""TLS from files on each node: checked contexts, what a peer's certificate says, and a watch that reads changed files.

It knows nothing of the mesh.
May import no other room.
"""
