"""The controller: the one actor that turns desired state into running replicas and gateways."""
