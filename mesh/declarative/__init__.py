"""Applications as data: from a YAML file, import paths and arguments to the specs that the controller stores.

It talks to no controller.
May import application and what it may import.
"""
