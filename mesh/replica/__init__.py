"""A replica: one Ray actor that runs the user's callable behind a gRPC server.

May import membership, link and everything below them, never the controller or handles.
"""
