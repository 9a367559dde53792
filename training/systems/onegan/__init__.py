"""OneGAN's training: objects on backgrounds, without labels or masks."""
