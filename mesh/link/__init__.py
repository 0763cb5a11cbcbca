"""Links: one long-lived stream between a process and a replica that carries all their calls as frames.

It knows neither routers nor user code.
May import options.calls and wire, and what they may import.
"""
