"""RPC over plain HTTP, as browsers speak it: the dialects gRPC-Web and Connect.

May import what dialects share (dialects, requests, ops) and mesh.
"""
