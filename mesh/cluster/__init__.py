"""Ray in the mesh's own terms: actors, nodes, placement, objects and the key-value store, with all names and keys.

The only room that imports Ray.
May import settings and what it may import.
"""
