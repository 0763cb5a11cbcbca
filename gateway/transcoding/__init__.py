"""JSON for typed methods: `google.api.http` rules, requests bound into protobuf messages, answers and streams as JSON.

It sees descriptors, message bytes and text; it knows no connection, no call and no clock.
May import rpc and what it may import.
"""
