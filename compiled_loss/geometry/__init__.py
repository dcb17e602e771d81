"""Boxes and keypoints: conversions and overlaps, element by element."""
