"""Differentiation as a translation of graphs into graphs."""
