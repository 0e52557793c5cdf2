"""What models that learn graphs have in common: priors, sampling of edges and its gradients, prices, codebooks."""
