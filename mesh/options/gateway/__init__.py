"""The options of `mesh.start`: `http_options`, `grpc_options`, tracing, the controller, and the message of all.

May import options.calls and settings, and what they may import.
"""
