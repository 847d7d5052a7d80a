"""Checks of what flows back: ND4."""
