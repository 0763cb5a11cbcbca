"""Applications as data: a YAML file, import paths and arguments become what the controller stores.

May import the application builder, config and options; it talks to no controller.
"""
