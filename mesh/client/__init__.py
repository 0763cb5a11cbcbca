"""The client's side of the control plane: the Control service's stub, the life of the mesh, waiting for rollouts.

May import membership, cluster, wire and the status records, never the controller.
"""
