"""What the controller publishes: snapshots and routes for callers, the status for users.

May import controller.scaling and what it may import.
"""
