"""The logs of the mesh's processes: their form, their files on each node, and how to find a record again.

May import context and what it may import.
"""
