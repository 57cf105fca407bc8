"""One common way to run the graphs of a bundle on every backend; no torch needed."""
