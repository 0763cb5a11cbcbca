"""What a request needs in every dialect: the route table, the descriptors of applications.

May import mesh, and no other room of the gateway.
"""
