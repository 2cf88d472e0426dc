"""What users write with: symbols and their operators, functions, variables, transforms of whole graphs."""
