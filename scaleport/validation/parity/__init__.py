"""The parity proof: cases, gates, and every graph against the PyTorch network."""
