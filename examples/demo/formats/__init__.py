"""Labels as people have them, each format read into a `Document`."""
