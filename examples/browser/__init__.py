"""A page that calls the weather application from a browser: JSON, events, a WebSocket, gRPC-Web and Connect."""
