"""Ray in the mesh's own terms: actors, nodes, placement, objects and the key-value store, with all names and keys.

The only room that imports Ray; it may import the settings and nothing else of ours.
"""
