"""The mesh's door to the outside world: one process per node that speaks gRPC and, for operators, HTTP."""
