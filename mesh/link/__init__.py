"""Links: one long-lived stream between a process and a replica that carries all their calls as frames.

May import wire, settings and exceptions; it knows neither routers nor user code.
"""
