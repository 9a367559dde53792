"""How good a model is, without downloaded weights."""
