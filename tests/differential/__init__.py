"""Random typed graphs, compiled for the CPU and compared with the float64 interpreter.

`generator` draws a graph from the whole registry, `noise` says how exactly its values can be known in float32, `check`
compiles, runs and compares, and `shrinker` makes a graph that fails as small as it can be. From a checkout,

    python -m tests.differential 17

draws the graph of seed 17, checks it, and shrinks it if it fails.
"""
