"""The controller's hands on Ray: the registry of actors, and the tasks that start, watch, check, drain and kill them.

May import plan and desired; must not import scaling or report.
"""
