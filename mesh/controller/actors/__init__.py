"""What acts on Ray: the registry of actors, and the tasks that start, watch, check, drain and kill them.

May import plan and desired; it knows neither scaling nor report.
"""
