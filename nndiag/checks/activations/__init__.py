"""Checks of what flows forward: ND3."""
