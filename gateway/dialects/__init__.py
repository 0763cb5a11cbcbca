"""The protocols that clients speak, one file each; no dialect knows another.

May import requests, ops and mesh.
"""
