"""Autoscaling: reported loads, users' policies, and the rule that turns both into a number of replicas.

May import controller.actors and logs, and what they may import.
"""
