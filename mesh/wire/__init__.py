"""What every process needs to speak: the I/O thread, servers and channels, payload codecs, status mapping, metrics.

May import exceptions and what it may import.
"""
