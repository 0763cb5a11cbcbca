"""The caller's side of routing: snapshots of ready replicas, the picker, the queue and the router.

May import context and routing.choice, and what they may import.
"""
