"""Web requests in user code: `@mesh.ingress` with its ASGI application, and plain deployments that take a request.

May import usercode and what it may import.
"""
