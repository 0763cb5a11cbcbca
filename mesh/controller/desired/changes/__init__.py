"""The changes of the desired state: pure functions from a stored state to its next version, or to a refusal.

Deploys, rollbacks, canaries and the options of gateways, with the history of each.
May import controller.store, options.deployments, options.gateway and routing, and what they may import.
"""
