"""`@mesh.multiplexed`: one replica serves many models and keeps the most recently used ones in memory.

May import usercode, context, settings, tracing and wire.
"""
