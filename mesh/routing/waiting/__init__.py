"""The calls that wait for a replica: their queues, how long they wait, and the words for those that are refused.

It knows the endpoints and links of a router, and nothing of the router itself. May import what its room may.
"""
