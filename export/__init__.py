"""Programs that write and verify exported graphs, and consumers of them."""
