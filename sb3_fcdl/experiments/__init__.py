"""Training runs from their arguments to their results: one of them, or all those of an experiment file."""
