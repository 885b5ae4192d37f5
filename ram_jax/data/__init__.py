"""Data sets, and the way from them to the batches of a run."""
