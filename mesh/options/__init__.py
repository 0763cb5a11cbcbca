"""Every option a user can set: its checks, its message form, and what changing it does to running replicas.

May import tls and what it may import.
"""
