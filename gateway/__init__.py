"""The gateway: a process on each node that speaks gRPC and HTTP to clients and operators.

Its rooms are requests, http1, ops and dialects, in the order of imports; it imports mesh, never the other way round.
"""
