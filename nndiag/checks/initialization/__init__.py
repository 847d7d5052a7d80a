"""Checks of the network before it has learned anything: ND2."""
