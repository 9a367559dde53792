"""COCO-GAN's training: a critic judges macro patches together with their places."""
