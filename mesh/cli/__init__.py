"""The `mesh` command: run applications, deploy configuration files, show what runs, delete it, end it all.

Nothing imports it; it uses the public API, the client and the declarative room.
"""
