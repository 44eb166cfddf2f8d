"""Generators of training series, and the real series that need no download."""
