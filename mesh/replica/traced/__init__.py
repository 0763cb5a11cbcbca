"""The executions of a replica that makes spans.

May import what its room may.
"""
