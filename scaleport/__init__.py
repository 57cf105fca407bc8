"""Scaleport."""
