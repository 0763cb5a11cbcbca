"""The `mesh` command: run applications, deploy configuration files, show what runs, delete it, shut everything down.

Nothing imports it.
May import api, declarative and stored, and what they may import.
"""
