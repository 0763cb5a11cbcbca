"""The data of the Open Inference Protocol: messages, tensors, requests, and what servers declare of their models.

May import wire and what it may import.
"""
