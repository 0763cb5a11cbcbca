"""What every process needs to speak: the I/O thread, servers and channels, payload codecs, status mapping, metrics.

May import cluster, settings, exceptions and the generated messages.
"""
