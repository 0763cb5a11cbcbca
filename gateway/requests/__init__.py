"""What a request needs in every dialect: routes, descriptors, headers, and the seam between connections and dialects.

May import mesh, and no other room of the gateway.
"""
