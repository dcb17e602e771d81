"""The stages of an audit, each a function from a `Subject` to findings."""
