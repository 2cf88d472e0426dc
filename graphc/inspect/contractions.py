"""The table of measured contractions: kernel forms of whole programs, and how long their schedules take.

`contractions.toml` holds, for one host, each form with the schedules that were measured, best first. It is written by
`tools/search_schedules.py`; the cost model of `graphc.codegen.contraction` is held against it by the tests, and
`graphc bench contractions` times its kernels.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from graphc.codegen.contraction import added_products
from graphc.codegen.host import Host
from graphc.ir.dims import evaluate
from graphc.kernel.compose import bind_kernel
from graphc.kernel.counts import points
from graphc.kernel.form import Kernel
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule, parse_schedule
from graphc.kernel.text import print_kernel

TABLE = Path(__file__).with_name("contractions.toml")
_ABOUT = """
Contractions of whole programs, and the schedules that were measured for each: the least time of a call on one thread,
best first. Written by tools/search_schedules.py.
"""


@dataclass(frozen=True)
class Measured:
    """A schedule without its parallel axis, and the microseconds of a call of its kernel on one thread."""

    schedule: Schedule
    microseconds: float


@dataclass(frozen=True)
class Row:
    """A contraction: `name` is the recipe's and the kernel's, `schedules` are those measured, best first.

    peak: the multiply-add peak in GFLOP/s that was measured along with them.
    """

    name: str
    form: Kernel
    peak: float
    schedules: tuple[Measured, ...]

    @property
    def family(self) -> str:
        """Which layer, and which of its three contractions: `convolution, weight gradient`."""
        recipe, kernel = self.name.split()
        recurrent = recipe.split("-")[0] in ("rnn", "lstm", "gru")
        layer = "recurrent" if recurrent else "convolution" if "contract" in kernel else "dense"
        if kernel.endswith("_sums") or any(operand.role == "inout" for operand in self.form.operands):
            return f"{layer}, weight gradient"
        return f"{layer}, input gradient" if "grad" in kernel else f"{layer}, forward"

    @property
    def best(self) -> Measured:
        """The fastest schedule that was found."""
        return self.schedules[0]

    def gflops(self, seconds: float) -> float:
        """GFLOP/s of a call that takes so long; what the products need counts, not what is done with the sums."""
        return needed_flops(self.form) / seconds / 1e9

    def place(self, schedule: Schedule) -> int | None:
        """The index of a schedule, threads aside, among those measured; None if it is not one of them."""
        alone = replace(schedule, parallel=None)
        return next((i for i, m in enumerate(self.schedules) if m.schedule == alone), None)


@dataclass(frozen=True)
class Table:
    """All rows, the host that the schedules are for, and the machine in words."""

    machine: str
    host: Host
    rows: tuple[Row, ...]


def needed_flops(form: Kernel) -> int:
    """Multiplications and additions of a contraction's sums at capacity, taps on padding not counted."""
    bound = bind_kernel(form, form.capacities, {})
    (stage,) = bound.stages
    products = added_products(stage.accumulates[0].exprs[0]) or []
    return 2 * len(products) * evaluate(points((*bound.space, *stage.reduce), bound), {})


def read_table(path: Path = TABLE) -> Table:
    """The table in a file. Raises OSError where there is none, GraphcError for what is no form or no schedule."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    host = Host(**data["host"])
    return Table(data["machine"], host, tuple(_row(name, row) for name, row in data["contractions"].items()))


def _row(name: str, data: Mapping[str, Any]) -> Row:
    times = (line.strip().split(" us  ", 1) for line in data["schedules"].strip().splitlines())
    measured = (Measured(parse_schedule(text), float(microseconds)) for microseconds, text in times)
    return Row(name, parse_kernel(data["form"]), data["peak"], tuple(measured))


def print_table(table: Table) -> str:
    """The text of a table, which `read_table` reads: TOML with a line for each schedule."""
    host = {field.name: getattr(table.host, field.name) for field in fields(table.host)}
    lines = [f"# {line}" for line in _ABOUT.strip().splitlines()]
    lines += [f"machine = {json.dumps(table.machine)}", "", "[host]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in host.items()]
    for row in table.rows:
        best = row.best.microseconds
        speed = row.gflops(best * 1e-6)
        lines += ["", f"[contractions.{json.dumps(row.name)}]", f"# {needed_flops(row.form) / 1e6:.4g} MFLOP, "
                  f"{speed:.1f} GFLOP/s, {speed / row.peak:.0%} of the peak", f"peak = {row.peak:.1f}", "form = '''"]
        lines += [*print_kernel(replace(row.form, origins=())).rstrip().splitlines(), "'''", "schedules = '''"]
        lines += [f"{m.microseconds:.4g} us  {m.schedule}" for m in row.schedules]
        lines += ["'''"]
    return "\n".join(lines) + "\n"
