"""The options of the gateways: `http_options`, `grpc_options`, their nodes, and the message of all."""
