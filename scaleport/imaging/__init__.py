"""Images: files and arrays, colour, resampling, tiles. No torch."""
