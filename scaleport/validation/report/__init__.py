"""What a validation came to: as text, as a table, as a page with pictures."""
