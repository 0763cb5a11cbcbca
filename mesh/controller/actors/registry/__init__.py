"""The controller's record of every replica and gateway: their states, and what failed of each version.

It starts, asks and ends nothing.
May import controller.plan and what it may import.
"""
