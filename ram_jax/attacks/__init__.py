"""Attacks, one per file, and what they share: norms, objectives, targets."""
