"""Random batches, labels and functions against what they must give: `python -m tests.fuzz.run --help`."""
