"""Checks of validation beside training: ND7."""
