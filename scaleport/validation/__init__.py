"""Validation: metrics, parity, reports."""
