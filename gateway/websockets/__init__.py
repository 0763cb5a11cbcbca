"""WebSockets: the handshake, the framing and the life of a connection, whatever its messages mean.

May import gateway.requests and what it may import.
"""
