"""Comparisons with PyTorch, and measurements of speed and memory."""
