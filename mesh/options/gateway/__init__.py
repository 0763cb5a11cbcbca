"""The options of `mesh.start`: `http_options`, `grpc_options`, tracing, the controller, and the message of all."""
