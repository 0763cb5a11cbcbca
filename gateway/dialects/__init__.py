"""The protocols that clients speak; no dialect knows another.

A dialect is one file. It turns a client's request into an `OutgoingCall` and is the sink of its response. It gets a
`ServedMethod` (served_method.py) for each method from `ServedMethods` (method_lookup.py). The gRPC dialect is
`grpc_call`, with its streams, metadata and status in files beside it; it uses `submit` and `cancel` of the router, and
credit in both directions. Dialects over HTTP have `MethodCall` (method_call.py) and `RequestFlow` (request_flow.py),
which do that for them. The listener of a port chooses the dialect.
May import gateway.access, gateway.ops, gateway.transcoding and gateway.websockets, and what they may import.
"""
