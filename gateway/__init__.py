"""The gateway: a process on each node that speaks gRPC to clients and HTTP to operators.

Its rooms are requests, ops and dialects, in the order of imports; it imports mesh, never the other way round.
"""
