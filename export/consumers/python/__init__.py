"""The gradient graph in Python without torch."""
