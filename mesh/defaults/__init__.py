"""The settings of all processes, group by group, with their defaults.

`mesh/settings.py` reads the environment variables that override them.
May import no other room.
"""
