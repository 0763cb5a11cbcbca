"""The user's code as the mesh holds it: pickled, its gRPC methods, per-object state, finalizers, its failures as text.

May import context and what it may import.
"""
