"""What the environment asks to be told of each compilation; read when a program is compiled, kept nowhere.

GRAPHC_LOGS   topics, separated by commas: cache, passes, rewrites, kernels, memory, remarks, or all. Lines go to
              Python's loggers `graphc.cache`, `graphc.passes`, ... (level INFO), and to standard error where the
              application has not set these up. Loggers that are on for INFO get their lines without the variable.
GRAPHC_DUMP   a folder: every compiled program is dumped into a folder of its own in it.

`graphc.inspect.announce` does it, and is loaded only if anybody asks.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping

from graphc.errors import GraphcWarning

TOPICS = ("cache", "passes", "rewrites", "kernels", "memory", "remarks")
LOGS, DUMP = "GRAPHC_LOGS", "GRAPHC_DUMP"


def asked(environ: Mapping[str, str]) -> bool:
    """Whether anything is to be told at all."""
    return bool(environ.get(LOGS) or environ.get(DUMP)) or any(logger(t).isEnabledFor(logging.INFO) for t in TOPICS)


def logger(topic: str) -> logging.Logger:
    """The logger of a topic."""
    return logging.getLogger(f"graphc.{topic}")


def topics(text: str) -> frozenset[str]:
    """The topics that a text such as `passes,kernels` names; `all` names every one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in (*TOPICS, "all")]
    if unknown:
        known = ", ".join((*TOPICS, "all"))
        warnings.warn(f"{LOGS}: unknown topic {unknown[0]!r}; there are: {known}", GraphcWarning, stacklevel=5)
    return frozenset(TOPICS if "all" in names else names)
