"""OneGAN's training on objects and backgrounds, without labels or masks."""
