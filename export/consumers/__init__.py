"""Consumers of the exported graphs, one folder for each language or place."""
