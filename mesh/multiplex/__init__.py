"""`@mesh.multiplexed`: one replica serves many models and keeps the most recently used ones in memory.

May import tracing and usercode, and what they may import.
"""
