"""Augmentation on the device: operations on uint8 images, each equal to Pillow's, and the views made of them."""
