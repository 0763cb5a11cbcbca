"""The logs of the mesh's processes: their form, their files on each node, and how to find a record again.

May import the context, the wire and what is below them.
"""
