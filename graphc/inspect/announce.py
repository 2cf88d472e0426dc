"""Telling of a compilation in logs and dumps; `graphc.inspect.environment` says what the environment can ask for."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graphc.inspect import report
from graphc.inspect.dump import dump
from graphc.inspect.environment import DUMP, LOGS, TOPICS, logger, topics
from graphc.ir.text import print_graph


def tell(program: report.Compiled, environ: Mapping[str, str]) -> None:
    """Log and dump a program that has just been compiled or found in the cache, as `environ` asks.

    Warns of unknown topics; raises InputError where the dump's folder cannot be written.
    """
    named = topics(environ.get(LOGS, ""))
    for topic in TOPICS:
        target = logger(topic)
        enabled = target.isEnabledFor(logging.INFO)
        if not enabled and topic not in named:
            continue
        for line in _LINES[topic](program):
            if enabled:
                target.info("%s: %s", program.name, line)
            if topic in named and not (enabled and target.hasHandlers()):
                print(f"[graphc.{topic}] {program.name}: {line}", file=sys.stderr)
    if folder := environ.get(DUMP):
        dump(program, Path(folder) / folder_name(program))


def folder_name(program: report.Compiled) -> str:
    """`name-3f2a91c0`: the same for the same declared graph and capacities, another for another."""
    text = f"{print_graph(program.graph, origins=False)}{sorted(program.plan.extents.items())}"
    word = re.sub(r"[^\w.-]", "_", program.name)
    return f"{word}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _cache_lines(program: report.Compiled) -> Iterator[str]:
    yield "found in the cache" if program.from_cache else "compiled"


def _pass_lines(program: report.Compiled) -> Iterator[str]:
    if program.from_cache:
        yield "found in the cache, no pass ran"
        return
    yield from (stage.summary for stage in program.stages)


def _rewrite_lines(program: report.Compiled) -> Iterator[str]:
    if not program.from_cache:
        for stage in program.stages:
            yield from (f"{stage.name}: {rewrite} ({rewrite.why})" for rewrite in stage.rewrites)


def _kernel_lines(program: report.Compiled) -> Iterator[str]:
    for kernel in program.kernels.values():
        found: dict[str, Any] = report.kernel_summary(kernel)
        yield f"{found['name']}: {found['flop']:,} FLOP, {found['bytes']:,} bytes, {found['schedule']}"


def _memory_lines(program: report.Compiled) -> Iterator[str]:
    held = report.memory(program.plan)
    yield f"arena {held['arena_bytes']:,} bytes"
    yield from (f"{region} {size:,} bytes" for region, size in held["bytes"].items())


_LINES = {
    "cache": _cache_lines,
    "passes": _pass_lines,
    "rewrites": _rewrite_lines,
    "kernels": _kernel_lines,
    "memory": _memory_lines,
    "remarks": lambda program: iter(program.remarks),
}
