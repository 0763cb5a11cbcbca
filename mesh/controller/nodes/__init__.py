"""Nodes that operators cordon and drain: how they are named, and what is stored and planned about them. Pure.

It imports what is desired and planned, and neither acts nor shows anything.
"""
