"""Translation between JSON and messages at a pace: little of it in each turn of the I/O loop, the rest in threads.

For all dialects with JSON. May import what its room may.
"""
