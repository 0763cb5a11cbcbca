"""The client's side of the control plane: the Control service's stub, the life of the mesh, waiting for rollouts.

It never imports the controller.
May import logs, membership, options.gateway, status and usercode, and what they may import.
"""
