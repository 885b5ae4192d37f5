"""What is shown of runs, all of it made from their result files."""
