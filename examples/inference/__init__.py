"""Models behind the Open Inference Protocol, called by Triton's client."""
