"""The kernel form: what runs, between the graph and the source text."""
