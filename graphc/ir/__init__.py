"""The language: types, graphs, ops, the builder, the textual form and the verifier."""
