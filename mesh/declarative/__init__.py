"""Applications as data: a YAML file, import paths and arguments become what the controller stores."""
