"""The choice of a replica for one call, and of a version where an application has a canary. Pure.

May import link and what it may import.
"""
