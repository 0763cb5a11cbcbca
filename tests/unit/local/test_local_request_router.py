"""Request routers of local applications: the same tests."""

# ruff: noqa: F403

from tests.e2e.test_request_router import *

# It is about two replicas and the gateway of a mesh; a local application has one replica of each deployment.
del test_calls_of_grpc_clients_go_where_the_class_says  # noqa: F821
