"""OpenTelemetry spans of gateways, calls, queues, replicas and batches, in processes that are to export them.

Where tracing is on, classes of its own take the places of the usual ones, so calls pay nothing where it is off.
May import routing and what it may import.
"""
