"""Graphs to kernels to source to machine code. Never imports the runtime."""
