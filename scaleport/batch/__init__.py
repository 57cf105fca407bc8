"""Many files: which ones, in what order, what is kept of an earlier run. No torch."""
