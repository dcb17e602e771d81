"""Checks a runtime against the conformance corpus, with numpy and that runtime alone."""
