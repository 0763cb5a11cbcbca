"""The options of a deployment: replicas and their resources, autoscaling, updates, and what a change of each does.

May import options and settings, and what they may import.
"""
