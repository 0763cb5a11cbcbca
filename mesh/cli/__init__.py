"""The `mesh` command: run applications, deploy configuration files, show what runs, delete it, shut everything down.

Nothing imports it; it uses the public API, the client and the declarative room.
"""
