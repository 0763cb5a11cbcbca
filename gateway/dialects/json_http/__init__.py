"""The JSON dialect: typed methods called with JSON over HTTP, by their own paths and by `google.api.http` rules.

`gateway/transcoding/` has the translation; here it meets exchanges and calls. May import what its room may.
"""
