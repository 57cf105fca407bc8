"""Tools for this repository: they write its documents and its package's data. Not in the wheel."""
