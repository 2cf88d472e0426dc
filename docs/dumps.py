"""Fills the dumps in `architecture.md` by running its example: `python docs/dumps.py`. A test tells when to do so.

A dump stands between fences below a marker: `<!-- dump: NAME -->`.
"""

from __future__ import annotations

import re
from pathlib import Path

import graphc as gc
from graphc.codegen.cuda import choose, emit
from graphc.ir.text import print_graph
from graphc.kernel.parser import parse_kernel
from graphc.kernel.plan_text import print_plan
from graphc.passes.manager import Stage

PAGE = Path(__file__).with_name("architecture.md")
BLOCK = re.compile(r"(<!-- dump: (?P<name>[\w ]+) -->\n```\w*\n)(?P<text>.*?)(?=\n```)", re.DOTALL)
DIGEST = re.compile(r"(?<=\w)_[0-9a-f]{16}(?=\()")  # of a symbol: it changes with every comment in the source
EXAMPLE = re.compile(r"<!-- example -->\n```python\n(?P<code>.*?)```", re.DOTALL)
LOOP = re.compile(r"<!-- loop example -->\n```python\n(?P<code>.*?)```", re.DOTALL)


def dumps(page: str) -> dict[str, str]:
    """The texts by name, from the programs called `step` that the page's examples make."""
    step, loop = _program(EXAMPLE, page), _program(LOOP, page)
    stages = {stage.name: stage for stage in step.stages}
    kernels = list(step.kernels.values())
    first, weight_gradient = kernels[0], next(k for k in kernels if "inout" in k.form and "matmul" in k.name)
    return {
        "declared": print_graph(step.graph),
        "differentiated": stages["differentiate"].after_text,
        "fused": stages["fuse"].after_text,
        "passes": "\n".join(map(_pass_line, step.stages)),
        "form": weight_gradient.form,
        "source": first.source,
        "cuda source": _cuda_source(first.form),
        "plan": DIGEST.sub("", print_plan(step.plan)),
        "loop plan": DIGEST.sub("", print_plan(loop.plan)),
    }


def _program(example: re.Pattern[str], page: str) -> gc.Program:
    match = example.search(page)
    assert match, f"architecture.md has no example of the form {example.pattern!r}"
    namespace: dict[str, object] = {"gc": gc}
    exec(compile(match["code"], "train.py", "exec"), namespace)
    step = namespace["step"]
    assert isinstance(step, gc.Program)
    return step


def _cuda_source(form: str) -> str:
    kernel = parse_kernel(form)
    return emit(kernel, choose(kernel))


def _pass_line(stage: Stage) -> str:
    before, after = len(stage.before.nodes), len(stage.after.nodes)
    return f"{stage.name:14} {before:3} -> {after:3} nodes, {len(stage.rewrites)} rewrites"


def refreshed(page: str) -> str:
    """The page with every dump replaced by what the example gives now."""
    found = dumps(page)
    return BLOCK.sub(lambda m: m[1] + found[m["name"]].strip(), page)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
