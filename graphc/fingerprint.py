"""Which compiler this is: what it has made before, a changed one makes anew."""

from __future__ import annotations

import functools
import hashlib
import pathlib
import sys
from importlib.metadata import version

import numpy as np

COMPILER_FOLDERS = ("ir", "kernel", "ops", "autodiff", "passes", "codegen", "runtime")
COMPILER_FILES = ("program.py", "options.py", "tuning.py")


@functools.cache
def compiler_fingerprint() -> str:
    """A digest of graphc's sources and of what it compiles with: a changed compiler hits no old entry."""
    root = pathlib.Path(__file__).parent
    digest = hashlib.sha256(f"python {sys.version} sympy {version('sympy')} numpy {np.__version__}".encode())
    files = [root / name for name in COMPILER_FILES]
    files += [p for folder in COMPILER_FOLDERS for p in (root / folder).rglob("*")]
    for path in sorted(p for p in files if p.suffix in (".py", ".ll", ".txt")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
