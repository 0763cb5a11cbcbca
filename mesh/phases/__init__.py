"""Phases of long-lived objects as transition tables, and waiting for one.

May import no other room.
"""
