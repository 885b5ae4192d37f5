"""The paper in plain PyTorch: networks and one training step."""
