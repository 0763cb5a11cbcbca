"""What the mesh costs, measured beside raw grpc.aio and Ray Serve in one run."""
