"""What every request meets, whatever its protocol: the route table and the count of requests in progress.

May import mesh, and no other room of the gateway.
"""
