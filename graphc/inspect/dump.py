"""Writing all that a compiled program went through to a folder: an HTML page, and the same as text files.

- `index.html`: everything on one page
- `graph.txt`: the graph as declared
- `stages/03-canonicalise.txt`: the graph after a pass; `.diff` has its rewrites and what changed
- `kernels/NAME.txt`: form and schedule; `.py` the source; `.ll` and `.s` LLVM and machine code, where asked for
- `memory.txt`, `remarks.txt`: the table of kernels with the memory map; why what was not fused was not
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from graphc.errors import InputError
from graphc.inspect import report
from graphc.inspect.page import page
from graphc.kernel.plan_text import print_plan


def dump(program: report.Compiled, folder: str | os.PathLike[str], *, machine_code: bool = False) -> Path:
    """Write the files and return the page's path. Files of these names are replaced, others stay.

    Raises InputError where the folder cannot be written.
    """
    root = Path(folder)
    try:
        for name, text in files(program, machine_code=machine_code):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"cannot write the dump of program {program.name!r} to {str(folder)!r}: {error}") from None
    return root / "index.html"


def files(program: report.Compiled, *, machine_code: bool = False) -> Iterator[tuple[str, str]]:
    """Names relative to the folder, and contents."""
    overview = report.overview(program)
    names = [stage["name"] for stage in overview["stages"]]
    stages = [report.stage_detail(program, name) for name in (report.DECLARED, *names)]
    kernels = [report.kernel_detail(program, name) for name in program.kernels]
    yield "index.html", page(overview, stages, kernels)
    yield "graph.txt", stages[0]["graph"].rstrip() + "\n"
    for number, stage in enumerate(stages[1:], start=1):
        stem = f"stages/{number:02}-{stage['name']}"
        yield f"{stem}.txt", stage["graph"].rstrip() + "\n"
        yield f"{stem}.diff", report.stage_text(stage, diff=True) + "\n"
    for kernel in kernels:
        stem = f"kernels/{kernel['name']}"
        yield f"{stem}.txt", f"{kernel['form'].rstrip()}\n\n# schedule: {kernel['schedule']}\n"
        yield f"{stem}.py", kernel["source"].rstrip() + "\n"
        if machine_code:
            view = report.named_kernel(program, kernel["name"])
            yield f"{stem}.ll", view.llvm()
            yield f"{stem}.s", view.asm()
    yield "memory.txt", print_plan(program.plan)
    yield "remarks.txt", "".join(f"{remark}\n" for remark in overview["remarks"])
