"""Comparison with a released implementation, stored (golden files) and live (parity)."""
