"""The conformance corpus: batches with right answers, as files that any language can read."""
