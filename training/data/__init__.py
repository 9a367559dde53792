"""The sources of training pictures."""
