"""Networks, one file each with a class `Model`, and their parts."""
