"""HTTP/2 as far as gRPC needs it, for servers and clients: bytes in, events out, and a thin asyncio shell.

The core decides without a socket, loop or clock of its own; it knows nothing of gRPC or of the mesh.
Read `connection` first: it opens with the theory of operation.
May import tls and what it may import.
"""
