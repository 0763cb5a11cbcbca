"""The controller's hands on Ray: the registry of actors, and the tasks that start, watch, check, drain and kill them.

It must not import scaling or report.
May import controller.actors.registry and usercode, and what they may import.
"""
