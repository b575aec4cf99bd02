"""Image files: decoding, the test transform, many at once, and what is wrong with them."""
