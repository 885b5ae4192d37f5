"""Weights that cross between this project and PyTorch."""
