"""Phases of long-lived objects as transition tables, and waiting for one.

The lowest room: it imports nothing of ours.
"""
