"""The gateway's own services (health, reflection, Ray Serve's API) in all dialects but gRPC.

May import gateway.web_rpc and what it may import.
"""
