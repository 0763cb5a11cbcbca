"""A replica: one Ray actor that runs the user's callable behind a gRPC server.

It never imports the controller.
May import handle, logs, multiplex and web, and what they may import.
"""
