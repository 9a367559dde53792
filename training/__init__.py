"""Training of models: data, losses, one loop for all systems, a recipe for each, and metrics."""
