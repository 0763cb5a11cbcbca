"""What operators read from a gateway: health, routes and the metrics of its node.

May import gateway.requests and what it may import.
"""
