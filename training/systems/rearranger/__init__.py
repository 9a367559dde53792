"""Training of the rearranger and of its semantic mapper."""
