"""Lowering of networks to the graphs of a bundle: one module per format."""
