"""A mesh of Python microservices on Ray, gRPC first."""
