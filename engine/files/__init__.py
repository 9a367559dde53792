"""Files of any kind: the one writer that renames, the one reader of pictures, locks, the cache, hostile content."""
