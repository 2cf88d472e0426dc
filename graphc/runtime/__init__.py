"""Runs a finished program (a plan, machine code, variables) and knows nothing of how it was made."""
