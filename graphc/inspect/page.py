"""A compiled program as one HTML page: no script, no other file, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template
from typing import Any

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>graphc: $title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328; }
pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; font: 13px/1.45 ui-monospace, monospace; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; border-bottom: 1px solid #d0d7de; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
summary { cursor: pointer; padding: .15rem 0; }
summary b { font-family: ui-monospace, monospace; }
.quiet { color: #57606a; }
.added { color: #116329; }
.removed { color: #b31d28; }
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")


def page(found: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], kernels: Sequence[Mapping[str, Any]]) -> str:
    """The page of `report.overview`, `report.stage_detail` of every pass and `report.kernel_detail` of every kernel."""
    declared, *passes = stages
    extents = ", ".join(f"{name} ≤ {size}" for name, size in found["extents"].items())
    body = [
        f"<p>{len(kernels)} kernels, arena of {found['memory']['arena_bytes']:,} bytes"
        + (f"; {escape(extents)}" if extents else "")
        + "</p>",
        "<h2>Declared graph</h2>",
        _pre(declared["graph"]),
        "<h2>Passes</h2>",
        *map(_stage, found["stages"], passes),
        "<h2>Kernels</h2>",
        _table(("kernel", "FLOP", "bytes", "schedule"),
               [(k["name"], k["flop"], k["bytes"], k["schedule"]) for k in kernels]),
        *map(_kernel, kernels),
        "<h2>Memory</h2>",
        _table(("buffer", "type", "region", "offset", "bytes"),
               [(b["name"], b["type"], b["region"], b["offset"], b["bytes"]) for b in found["memory"]["buffers"]]),
        "<h2>Remarks</h2>",
        "<ul>" + "".join(f"<li>{escape(remark)}</li>" for remark in found["remarks"]) + "</ul>"
        if found["remarks"] else "<p class=\"quiet\">none</p>",
    ]  # fmt: skip
    return PAGE.substitute(title=escape(found["program"]), body="\n".join(body))


def _stage(summary: Mapping[str, Any], detail: Mapping[str, Any]) -> str:
    counts = f"{summary['before']} → {summary['after']} nodes, {summary['rewrites']} rewrites"
    rows = [(r["rule"], f"{r['before']}  →  {r['after']}", r["why"], r["origin"]) for r in detail["rewrites"]]
    parts = [_table(("rule", "rewrite", "why", "where"), rows)] if rows else []
    parts += [_diff(detail["diff"]) if detail["diff"] else '<p class="quiet">nothing changed</p>']
    parts += [f"<details><summary>the graph after it</summary>{_pre(detail['graph'])}</details>"]
    return _details(summary["name"], counts, parts)


def _kernel(kernel: Mapping[str, Any]) -> str:
    origins = "".join(f"<li>{escape(origin)}</li>" for origin in kernel["origins"])
    parts = [f"<p>computes</p><ul>{origins}</ul>", "<p>form</p>", _pre(kernel["form"])]
    parts += [f"<p>schedule: <code>{escape(kernel['schedule'])}</code></p>", "<p>source</p>", _pre(kernel["source"])]
    return _details(kernel["name"], f"{kernel['flop']:,} FLOP, {kernel['bytes']:,} bytes", parts)


def _details(name: str, note: str, parts: Iterable[str]) -> str:
    head = f'<summary><b>{escape(name)}</b> <span class="quiet">{escape(note)}</span></summary>'
    return f"<details>{head}\n" + "\n".join(parts) + "\n</details>"


def _pre(text: str) -> str:
    return f"<pre>{escape(text.rstrip())}</pre>"


def _diff(text: str) -> str:
    kinds = {"+": "added", "-": "removed", "@": "quiet"}
    lines = (f'<span class="{kinds[line[0]]}">{escape(line)}</span>' if line[:1] in kinds else escape(line)
             for line in text.split("\n"))  # fmt: skip
    return "<pre>" + "\n".join(lines) + "</pre>"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Integers stand to the right, with thousands separated."""
    numbers = [bool(rows) and all(isinstance(row[k], int) for row in rows) for k in range(len(head))]

    def line(tag: str, cells: Sequence[Any]) -> str:
        made = []
        for cell, number in zip(cells, numbers, strict=True):
            text = f"{cell:,}" if isinstance(cell, int) else escape(str(cell))
            made.append(f'<{tag} class="number">{text}</{tag}>' if number else f"<{tag}>{text}</{tag}>")
        return f"<tr>{''.join(made)}</tr>"

    return "<table>\n" + "\n".join([line("th", head), *(line("td", row) for row in rows)]) + "\n</table>"
