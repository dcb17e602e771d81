"""Slow float64 loops written from the definitions alone: they import nothing from the package they judge."""
