"""Checks of the data: ND0."""
