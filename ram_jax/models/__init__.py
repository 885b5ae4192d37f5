"""Networks (one file with a class `Model` each) and their layers."""
