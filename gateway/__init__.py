"""The gateway: a process on each node that speaks gRPC and HTTP to clients and operators.

It imports the mesh; the mesh never imports it.
May import gateway.built_in, gateway.http1, gateway.openapi and local, and what they may import.
"""
