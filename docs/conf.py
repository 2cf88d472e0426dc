"""Sphinx settings: `pip install ".[docs]" && sphinx-build -W docs docs/_build`."""

from __future__ import annotations

project = "graphc"
author = "The graphc authors"
project_copyright = "The graphc authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "alabaster"
