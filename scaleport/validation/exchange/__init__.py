"""Outputs that are made on one machine and judged on another."""
