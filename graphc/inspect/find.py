"""From what a user types after `graphc inspect` to a compiled program."""

from __future__ import annotations

import os
import runpy

from graphc import nn
from graphc.errors import GraphcError, InputError
from graphc.inspect.bench import compiled
from graphc.inspect.workloads import WORKLOADS
from graphc.program import Program


def program(name: str) -> Program:
    """The program of a workload (`mlp`), or what a script makes (`FILE.py:NAME`): a `gc.Program` or a trained model.

    The script runs as a module called `<graphc inspect>`, so code under `if __name__ == "__main__"` does not. Raises
    InputError for an unknown name, a script that is not there or fails, and anything that is no program.
    """
    if name in WORKLOADS:
        return compiled(WORKLOADS[name])[0]
    path, colon, attribute = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise InputError(f"unknown model {name!r}; give one of {', '.join(WORKLOADS)}, or FILE.py:NAME")
    if not os.path.isfile(path):
        raise InputError(f"there is no script {path}")
    found = _run_script(path)
    if attribute not in found:
        programs = [key for key, value in found.items() if isinstance(value, (Program, nn.Module))]
        raise InputError(f"{path} defines no {attribute!r}; its programs and models: {', '.join(programs) or 'none'}")
    value = found[attribute]
    if isinstance(value, nn.Module):
        return value.program("train")
    if not isinstance(value, Program):
        kind = type(value).__name__
        raise InputError(f"{attribute!r} in {path} is of type {kind}; expected what gc.compile returns, or a model")
    return value


def _run_script(path: str) -> dict[str, object]:
    try:
        return runpy.run_path(path, run_name="<graphc inspect>")
    except GraphcError:
        raise
    except Exception as error:
        raise InputError(f"{path} fails: {type(error).__name__}: {error}") from error
