"""The cluster's key-value store as the controller uses it: the desired state, code and descriptors, fenced.

The lowest room of the controller. It knows what is stored and not what it means.
May import cluster and stored, and what they may import.
"""
