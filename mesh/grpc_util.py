"""What a method of a gRPC service receives, under the names of `ray.serve.grpc_util`, for annotations."""

from mesh.replica.flow_control import RequestStream as gRPCInputStream
from mesh.replica.grpc_context import GrpcContext as RayServegRPCContext

__all__ = ["RayServegRPCContext", "gRPCInputStream"]
