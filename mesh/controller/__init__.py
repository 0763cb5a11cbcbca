"""The controller: the one actor that turns desired state into running replicas and gateways.

Its loop uses its rooms in this order: store, desired, plan, actors, scaling, report.
It never imports replicas or handles.
May import controller.nodes and controller.report, and what they may import.
"""
