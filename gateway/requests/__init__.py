"""What a request needs in every dialect: the route table.

May import mesh, and no other room of the gateway.
"""
