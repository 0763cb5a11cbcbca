"""The options of calls that handles and gateways share: retries and second copies, with their checks.

May import options and what it may import.
"""
