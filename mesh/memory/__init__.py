"""The memory of large messages, which is used again for the next ones.

It knows nothing of messages.
May import settings and what it may import.
"""
