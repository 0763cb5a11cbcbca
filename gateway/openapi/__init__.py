"""OpenAPI 3.1 documents of applications, made from descriptors, and a page on which their methods can be tried.

May import gateway.requests and gateway.transcoding, and what they may import.
"""
