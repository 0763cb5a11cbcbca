"""Applications as data: from a YAML file, import paths and arguments to the specs that the controller stores.

May import the application builder, config and options; it talks to no controller.
"""
