"""The executions of a replica that makes spans. Part of the room of `mesh.replica`."""
