"""Checks of the training loop: ND9."""
