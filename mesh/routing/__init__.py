"""The caller's side of routing: snapshots of ready replicas, the picker, the queue and the router."""
