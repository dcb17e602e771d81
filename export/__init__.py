"""Consumers of exported graphs, and the table of runtimes."""
