"""Looking inside: circuits, reports, dumps, benchmarks and self-tests. Reads everything.

Read by the command line; `gc.circuit` is public, and `Program.dump` loads what writes reports.
"""
