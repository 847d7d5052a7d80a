"""Checks of outputs, targets and loss together: ND1."""
