"""TLS: contexts from files that are checked and watched, what a peer's certificate says, and a port for its handshakes.

It knows nothing of the mesh.
May import no other room.
"""
