"""Images and labels: their sources, the long-tailed choice of rows, and the augmentation on the device."""
