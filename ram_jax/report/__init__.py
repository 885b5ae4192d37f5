"""Tables, figures and pages, all generated from the files of runs."""
