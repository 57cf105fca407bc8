"""The bundle: a directory with every exported graph of one model and what is known of it."""
