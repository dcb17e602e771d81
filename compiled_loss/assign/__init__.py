"""Target assignment: which anchors learn which target row, and how much."""
