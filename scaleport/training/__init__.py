"""Training of super-resolution networks from a folder of images."""
