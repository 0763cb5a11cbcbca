"""A replica: one Ray actor that runs the user's callable behind a gRPC server."""
