"""gRPC on HTTP/2: heads, messages and statuses, a server and a channel. It knows nothing of the mesh.

The server takes what generated code registers, and receivers of its own for calls that have no time for tasks.
May import http2, memory and phases, and what they may import.
"""
