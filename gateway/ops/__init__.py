"""What operators read from a gateway: health, routes and the metrics of its node.

May import requests and mesh.
"""
