"""Scores of networks on benchmark images, by the protocols of published tables."""
