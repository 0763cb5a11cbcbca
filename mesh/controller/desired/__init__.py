"""What users asked for: the stored desired state, how requests change it, and what it demands of the cluster.

The lowest room of the controller: it imports none of the others.
"""
