"""The search for the first layer at which a backend leaves the PyTorch network."""
