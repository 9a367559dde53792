"""Metrics of a model's quality, which need no downloaded weights."""
