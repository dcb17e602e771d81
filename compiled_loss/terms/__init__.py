"""Loss terms, unreduced: one number per positive, no knowledge of models or gains."""
