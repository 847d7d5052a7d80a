"""Checks of the training loss: ND6."""
