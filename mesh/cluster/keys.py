"""Owns the keys of the cluster's KV under which everybody learns of the controller."""

CONTROLLER_ADDRESS_KEY = "controller/address"
"""Its "host:port"."""
CONTROLLER_FAILURE_KEY = "controller/failure"
"""Why its last start failed; there only while that is so."""
