"""Checks of updates and the optimiser: ND5."""
