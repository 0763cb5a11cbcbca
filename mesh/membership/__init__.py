"""This process as a member of the mesh: its routers, its Sync stream to the controller, its Process service.

May import options.deployments and tracing, and what they may import.
"""
