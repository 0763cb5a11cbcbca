"""`@mesh.batch`: single calls of an async function or method run together, as lists.

May import multiplex and what it may import.
"""
