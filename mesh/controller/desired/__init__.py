"""What users asked for: the stored desired state, how requests change it, and what it demands of the cluster.

May import controller.desired.changes and what it may import.
"""
