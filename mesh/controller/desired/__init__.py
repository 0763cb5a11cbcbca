"""What users asked for: the stored desired state, how requests change it, and what it demands of the cluster.

It imports no other room of the controller but the store.
"""
