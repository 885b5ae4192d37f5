"""Networks (one per file, each as a class `Model`) and their layers."""
