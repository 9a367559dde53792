"""COCO-GAN's training: macro patches judged with their places."""
