"""`@mesh.batch`: single calls of an async function or method run together, as lists.

May import what lies below user code: options, multiplex, usercode, context, wire.
"""
