"""Pixels, depth and points to features."""
