"""The assignment graph in a browser, and the program that puts its page together."""
