"""Runs exported files in the runtimes that people use, and compares them with eager torch."""
