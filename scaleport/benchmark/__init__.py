"""Measuring speed: contenders take turns, so that every ratio is of times measured side by side."""
