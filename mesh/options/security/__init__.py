"""The options that say who may call a gateway, how often, and with which certificates.

May import what its room may.
"""
