"""Training: what a run does, from its data to a model with a result, resumable to the bit."""
