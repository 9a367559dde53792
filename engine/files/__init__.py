"""Files: the one writer that renames, the one reader of pictures, the cache."""
