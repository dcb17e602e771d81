"""Exported files in the runtimes that people have, compared with eager torch."""
