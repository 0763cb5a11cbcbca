"""HTTP/1.1: heads and bodies as pure functions, and a connection that makes exchanges of them.

May import gateway.requests and what it may import.
"""
