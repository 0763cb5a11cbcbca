"""The pure planners: from desired state, observed cluster and the time to the next actions.

No Ray, no clock, no I/O.
May import controller.desired and status, and what they may import.
"""
