"""Layer 5: the command line: one verb a file; the only place that prints or exits."""
