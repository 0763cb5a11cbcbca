"""RPC over plain HTTP, as browsers speak it: the dialects gRPC-Web and Connect.

May import gateway.dialects and what it may import.
"""
