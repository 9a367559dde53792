"""Files that pictures of any size stream into."""
