"""The losses: thin modules, each the same few steps in the same order."""
