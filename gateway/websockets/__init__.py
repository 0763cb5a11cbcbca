"""WebSockets: the handshake, the framing and the life of a connection, whatever its messages mean.

May import requests and mesh.
"""
