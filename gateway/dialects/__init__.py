"""The protocols that clients speak; no dialect knows another.

A dialect is one file. It turns a client's request into an `OutgoingCall` and is the sink of its response. It gets a
`ServedMethod` (served_method.py) for each method; from then on it uses `submit` and `cancel` of the router, and credit
in both directions. The gRPC dialect is `grpc_call`, with its streams, metadata and status in files beside it. The
listener of a port chooses the dialect. May import requests, ops and mesh.
"""
