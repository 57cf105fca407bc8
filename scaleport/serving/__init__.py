"""Where models meet people who have no Python: the page in a browser, and model servers."""
