"""Side by side with PyTorch: a reference of our own, parity, evaluation."""
