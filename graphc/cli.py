"""The `graphc` command: train a model, time a workload, look inside a compiled program, check the installation.

Results go to standard output, messages to standard error. Exit codes: 0 done, 1 a check failed, 2 bad arguments or
data, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TextIO

import graphc
from graphc.errors import GraphcError, InputError, StepInterrupted
from graphc.runtime.cores import chosen_threads

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
# What `graphc bench` takes; a test holds the steps against inspect/workloads.py, which loads the whole language.
WORKLOADS = (
    "mlp", "mlp_small", "lenet", "vgg_small", "dae", "rbm", "rnn", "infer_lenet", "contractions", "peak",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (`sys.argv[1:]` by default); returns its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
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


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line, without the place in graphc's code that Python would add."""
    print(f"graphc: warning: {' '.join(str(message).split())}", file=sys.stderr)


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
    parser.add_argument("--lr", type=_rate, help="learning rate (sgd 0.1, adam 0.001)")
    parser.add_argument("--hidden", type=_sizes, default=(512, 512), help="units of the hidden layers (512,512)")
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd",
                        help="sgd has momentum 0.9 (%(default)s)")
    parser.add_argument("--decay", choices=["cosine", "none"], default="cosine",
                        help="cosine: the learning rate falls epoch by epoch, towards 0 (%(default)s)")
    parser.add_argument("--validation", type=_fraction, default=0.1, metavar="FRACTION",
                        help="share of the training images held out to watch progress (%(default)s)")
    _add_machine(parser)
    parser.add_argument("--save", metavar="FILE", help="write the trained parameters (.safetensors)")
    _add_json(parser)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_bench)
    parser.add_argument("workload", choices=WORKLOADS, help="a training step (mlp: 784-512-512-10, batch 128; "
                        "mlp_small: 64-64-10, batch 32; lenet, vgg_small: convolutions; dae: a denoising autoencoder; "
                        "rbm: CD-1 of a Boltzmann machine; rnn: a recurrent network), infer_lenet: one image's "
                        "logits, contractions: the kernels of many layers, or peak: fused multiply-adds and memory "
                        "bandwidth of this machine")
    parser.add_argument("--seconds", type=_rate, default=2.0, help="how long to time (%(default)s)")
    parser.add_argument("--tune", action="store_true", help="measure schedules of kernels first, and use the fastest")
    _add_machine(parser)
    _add_json(parser)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_inspect)
    parser.add_argument("model", metavar="MODEL",
                        help="a workload of `graphc bench` (mlp, ...), or FILE.py:NAME of a gc.Program in a script")
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--stage", metavar="NAME", help="the graph after this pass ('declared': before the first)")
    show.add_argument("--kernel", metavar="NAME", help="one kernel: its form, schedule and source")
    show.add_argument("--dump", metavar="DIR", help="write everything to this folder: index.html and text files")
    parser.add_argument("--diff", action="store_true", help="with --stage: what the pass changed, and its rewrites")
    code = parser.add_mutually_exclusive_group()
    code.add_argument("--llvm", action="store_true", help="with --kernel: its optimised LLVM assembly")
    code.add_argument("--asm", action="store_true", help="with --kernel: its machine code as assembly")
    _add_json(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_count, default=0, help="start of all random numbers (%(default)s)")
    parser.add_argument("--threads", type=_positive, help="threads of a step (GRAPHC_THREADS, or the cores)")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


# Values of options; argparse turns the exceptions into its own errors.


def _count(text: str) -> int:
    return _integer(text, least=0)


def _positive(text: str) -> int:
    return _integer(text, least=1)


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}")
    return value


def _rate(text: str) -> float:
    if not 0 < (value := _number(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def _fraction(text: str) -> float:
    if not 0 <= (value := _number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 ... 1 (1 excluded)")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(",")) if text.strip() else ()


# The commands. What they need is imported when they run: `graphc --help` needs nothing, and training with a cached
# program never loads the compiler.


def _train(arguments: argparse.Namespace) -> int:
    """Train, print the test accuracy, save; an interrupted run saves what it has."""
    from graphc.models import digits

    _check_writable(arguments.save)
    start = time.perf_counter()
    data = digits.digits(arguments.data, validation=arguments.validation, seed=arguments.seed)
    recipe = digits.Recipe(arguments.epochs, arguments.batch_size, arguments.optimizer, arguments.lr, arguments.decay)
    model = digits.classifier(arguments.hidden, recipe, seed=arguments.seed, threads=arguments.threads)
    try:
        if arguments.json:
            digits.fit(model, data, recipe, on_epoch=_print_epoch, verbose=0)
        else:
            digits.fit(model, data, recipe)
    except StepInterrupted:  # some parameters may be half updated
        raise
    except KeyboardInterrupt:  # the parameters are those after a whole step, so they are worth keeping
        _save(model, arguments.save)
        raise
    _save(model, arguments.save)
    scores = model.evaluate(*data.test)
    seconds = time.perf_counter() - start
    if arguments.json:
        _print_json({"test_loss": scores["loss"], "test_accuracy": scores["accuracy"], "seconds": round(seconds, 3)})
    else:
        print(f"test accuracy {scores['accuracy']:.2%}, test loss {scores['loss']:.4f}, {seconds:.1f} s in all")
    return 0


def _check_writable(path: str | None) -> None:
    """Refuse a file that could not be written before an hour of training, not after it."""
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InputError(f"--save {path}: {folder} is no folder that can be written to, or {path} is a folder")


def _save(model: Any, path: str | None) -> None:
    if path is not None:
        model.save(path)
        print(f"parameters written to {path}", file=sys.stderr)


def _bench(arguments: argparse.Namespace) -> int:
    result: Any
    threads = chosen_threads(arguments.threads, os.environ)
    if arguments.tune and arguments.workload in ("peak", "contractions"):
        raise InputError(f"--tune is for workloads that are compiled; {arguments.workload} has nothing to tune")
    if arguments.workload == "peak":
        from graphc.inspect.peak import measure_peak

        result = measure_peak(threads, arguments.seconds)
    elif arguments.workload == "contractions":
        from graphc.inspect.contraction_speed import measure_contractions

        result = measure_contractions(arguments.seconds, arguments.seed)
    else:
        from graphc.inspect.bench import run

        result = run(arguments.workload, threads=threads, seconds=arguments.seconds, seed=arguments.seed,
                     tune=arguments.tune)
    if arguments.json:
        _print_json(result.to_json())
    else:
        print(result)
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from graphc.inspect import find, report

    _check_inspect(arguments)
    program = find.program(arguments.model)
    if arguments.dump is not None:
        page = program.dump(arguments.dump)
        found, text = {"page": str(page)}, f"written to {page}"
    elif arguments.stage is not None:
        found = report.stage_detail(program, arguments.stage)
        text = report.stage_text(found, diff=arguments.diff)
    elif arguments.kernel is not None:
        found = report.kernel_detail(program, arguments.kernel)
        for form in ("llvm", "asm"):
            if getattr(arguments, form):
                found[form] = getattr(report.named_kernel(program, arguments.kernel), form)()
        text = found.get("llvm") or found.get("asm") or report.kernel_text(found)
    else:
        found = report.overview(program)
        text = report.overview_text(found)
    if arguments.json:
        _print_json(found)
    else:
        print(text)
    return 0


def _check_inspect(arguments: argparse.Namespace) -> None:
    if arguments.diff and arguments.stage is None:
        raise InputError("--diff needs --stage NAME: whose changes?")
    if (arguments.llvm or arguments.asm) and arguments.kernel is None:
        raise InputError("--llvm and --asm need --kernel NAME: of which kernel?")


def _doctor(arguments: argparse.Namespace) -> int:
    from graphc.inspect.doctor import FAILURE, examine

    findings = examine()
    failed = any(finding.state == FAILURE for finding in findings)
    if arguments.json:
        _print_json({"ok": not failed, "findings": [finding.to_json() for finding in findings]})
    else:
        print(*findings, sep="\n")
    return FAILED if failed else 0


def _print_epoch(epoch: int, logs: Mapping[str, float]) -> None:
    _print_json({"epoch": epoch, **logs})


def _print_json(data: dict[str, Any]) -> None:
    """One object on one line, at once, so that a reader of the pipe sees it when it happens."""
    print(json.dumps(data), flush=True)
