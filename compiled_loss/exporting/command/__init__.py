"""The command: `python -m compiled_loss export ...` writes and verifies graphs."""
