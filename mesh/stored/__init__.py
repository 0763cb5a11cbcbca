"""What outlives the processes of a mesh: the version of the form of its desired state, and backup files.

Pure: it reads and writes bytes, and neither files nor the cluster.
May import no other room.
"""
