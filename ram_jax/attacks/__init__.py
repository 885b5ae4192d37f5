"""Attacks (one file with a class `Attack` each) and their norms."""
