"""Data sets, and how they become the batches of a run."""
