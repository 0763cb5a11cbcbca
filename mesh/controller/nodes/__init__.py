"""Nodes that operators cordon and drain: how they are named, and what is stored and planned about them. Pure.

It neither acts nor shows anything.
May import controller.plan and what it may import.
"""
