"""Examples: applications that are worth showing, and the demo that runs one of them."""
