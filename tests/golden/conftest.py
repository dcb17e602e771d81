"""Leaves the programs that need the oracle out of the collection of doctests."""

collect_ignore = ["audited.py", "compare.py", "draw.py", "make_golden.py", "oracle.py", "parity.py"]
