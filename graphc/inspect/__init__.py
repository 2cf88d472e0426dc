"""Looking inside: reports, benchmarks and self-tests. Reads everything, is read by the command line alone."""
