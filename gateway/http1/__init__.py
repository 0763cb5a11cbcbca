"""HTTP/1.1: heads and bodies as pure functions, and a connection that makes exchanges of them.

May import requests, and http2 for what both versions of HTTP have in common.
"""
