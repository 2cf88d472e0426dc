"""The `graphc` command: train a model, time a workload, look inside a compiled program, check the installation.

Results go to standard output, messages to standard error. Exit codes: 0 done, 1 a check failed, 2 bad arguments or
data, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import graphc
from graphc.errors import GraphcError
from graphc.models import digits

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
WORKLOADS = ("mlp", "mlp_small", "peak")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (`sys.argv[1:]` by default); returns its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("graphc: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; Python must not flush into the pipe again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GraphcError, OSError) as error:
        print(f"graphc: error: {' '.join(str(error).split())}", file=sys.stderr)
        return REFUSED


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where to read on; exit with 2."""
        self.exit(REFUSED, f"{self.prog}: error: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="graphc", description="A compiler for neural networks.")
    parser.add_argument("--version", action="version", version=f"graphc {graphc.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_train(commands.add_parser("train", help="train a model on MNIST and tell its test accuracy"))
    _add_bench(commands.add_parser("bench", help="time a training step, or measure this machine's limits"))
    _add_inspect(commands.add_parser("inspect", help="show the stages, kernels and memory of a compiled program"))
    doctor = commands.add_parser("doctor", help="check this installation")
    _add_json(doctor)
    doctor.set_defaults(run=_doctor)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_train)
    parser.add_argument("model", choices=["mlp"], help="mlp: 784 pixels, hidden ReLU layers, 10 digits")
    parser.add_argument("--data", metavar="DIR", help="folder of the four MNIST files; default: GRAPHC_DATA, "
                        "else the subset that comes with graphc")
    parser.add_argument("--epochs", type=_positive, default=10, help="passes over the training images (%(default)s)")
    parser.add_argument("--batch-size", type=_positive, default=64, help="images in a step (%(default)s)")
    parser.add_argument("--lr", type=_rate, help="learning rate (sgd 0.05, adam 0.001)")
    parser.add_argument("--hidden", type=_sizes, default=(512, 512), help="units of the hidden layers (512,512)")
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd",
                        help="sgd has momentum 0.9 (%(default)s)")
    parser.add_argument("--validation", type=_fraction, default=0.1, metavar="FRACTION",
                        help="share of the training images held out to watch progress (%(default)s)")
    _add_machine(parser, threads=1)
    parser.add_argument("--save", metavar="FILE", help="write the trained parameters (.safetensors)")
    _add_json(parser)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_bench)
    parser.add_argument("workload", choices=WORKLOADS, help="mlp: 784-512-512-10, batch 128; mlp_small: 64-64-10, "
                        "batch 32; peak: fused multiply-adds and memory bandwidth of this machine")
    parser.add_argument("--seconds", type=_rate, default=2.0, help="how long to time (%(default)s)")
    _add_machine(parser, threads=1)
    _add_json(parser)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_inspect)
    parser.add_argument("model", metavar="MODEL", help="mlp, mlp_small, or FILE.py:NAME of a gc.Program in a script")
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--stage", metavar="NAME", help="the graph after this pass ('declared': before the first)")
    show.add_argument("--kernel", metavar="NAME", help="one kernel: its form, schedule and source")
    parser.add_argument("--diff", action="store_true", help="with --stage: what the pass changed, and its rewrites")
    code = parser.add_mutually_exclusive_group()
    code.add_argument("--llvm", action="store_true", help="with --kernel: its optimised LLVM assembly")
    code.add_argument("--asm", action="store_true", help="with --kernel: its machine code as assembly")
    _add_json(parser)


def _add_machine(parser: argparse.ArgumentParser, threads: int) -> None:
    parser.add_argument("--seed", type=_count, default=0, help="start of all random numbers (%(default)s)")
    parser.add_argument("--threads", type=_positive, default=threads, help="threads of a step (%(default)s)")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


# Values of options; argparse turns the exceptions into its own errors.


def _count(text: str) -> int:
    if not (value := int(text)) >= 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _positive(text: str) -> int:
    if not (value := int(text)) >= 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _rate(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _fraction(text: str) -> float:
    if not 0 <= (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 ... 1 (1 excluded)")
    return value


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(",") if part.strip())


for _type, _name in ((_count, "integer"), (_positive, "integer"), (_rate, "number"), (_fraction, "number"),
                     (_sizes, "list of integers")):
    _type.__name__ = _name
