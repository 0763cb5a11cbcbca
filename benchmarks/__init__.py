"""The cost of the mesh, compared with raw grpc.aio and Ray Serve in one run."""
