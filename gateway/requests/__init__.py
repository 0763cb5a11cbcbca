"""What a request needs in every dialect: routes, descriptors, headers, and the seam between connections and dialects.

The lowest room of the gateway.
May import routing and what it may import.
"""
