"""The pure planners: from desired state, observed cluster and the time to the next actions.

May import desired; no Ray, no clock, no I/O.
"""
