"""Looking at a learned model: contexts, explanations, errors, and what TensorBoard is shown."""
