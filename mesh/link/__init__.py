"""Links: one long-lived stream between a process and a replica that carries all their calls as frames."""
