"""Checks of the arithmetic: ND8."""
