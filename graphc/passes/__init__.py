"""Graph to graph rewrites, one file each; `manager` runs them, `rewrite` matches patterns, `pipeline` is the order."""
