"""OpenTelemetry spans of gateways, calls, queues, replicas and batches, in processes that are to export them.

Nothing of it is in the way of a call where tracing is off: classes of its own take the places of the usual ones where
it is on. May import context, link, routing, settings and wire.
"""
