"""Attacks, one file each with a class `Attack`, and their norms."""
