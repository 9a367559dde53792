"""Training of StyleGAN2."""
