"""Key patches' training: images and the patches in them, without labels."""
