"""A deployment's own choice of replicas: the contract of such a class, its thread, and the calls that it ranks.

User code never runs on the I/O loop, and a class that fails or is late only loses its say.
May import what its room may.
"""
