"""The `graphc` command: what it prints, how it fails, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import graphc
from graphc import tuning
from graphc.cli import main
from graphc.interop.safetensors import load_arrays
from graphc.kernel.form import Kernel
from graphc.kernel.schedule import Schedule

TRAIN = ["train", "mlp", "--hidden", "16", "--epochs", "1", "--batch-size", "200"]
TIMEOUT = 120


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, off a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "graphc", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": str(Path(graphc.__file__).parent.parent), **environment},
    )


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# train


def test_train_prints_a_line_an_epoch_and_the_test_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--epochs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["1/2", "2/2"]
    assert all("val_accuracy" in line for line in lines[:-1])
    assert lines[-1].startswith("test accuracy ")


def test_train_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--epochs", "2", "--json"]) == 0
    captured = capsys.readouterr()
    *epochs, last = json_lines(captured.out)
    assert captured.err == ""
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"} == epochs[0].keys()
    assert epochs[1]["loss"] < epochs[0]["loss"]
    assert {"test_loss", "test_accuracy", "seconds"} == last.keys()
    assert 0.5 < last["test_accuracy"] < 1


def test_train_is_reproducible_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        file = tmp_path / f"{name}.safetensors"
        assert main([*TRAIN, "--seed", seed, "--save", str(file), "--optimizer", "adam", "--validation", "0"]) == 0
        assert str(file) in capsys.readouterr().err
        found.append(load_arrays(file))
    assert found[0].keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert all(found[0][key].tobytes() == found[1][key].tobytes() for key in found[0])
    assert any(found[0][key].tobytes() != found[2][key].tobytes() for key in found[0])


@pytest.mark.slow
def test_train_reaches_95_percent_on_the_subset_in_a_minute() -> None:
    start = time.perf_counter()
    done = command("train", "mlp", "--json", GRAPHC_CACHE="off")
    assert done.returncode == 0, done.stderr
    assert json_lines(done.stdout)[-1]["test_accuracy"] >= 0.95
    assert time.perf_counter() - start < 60


@pytest.mark.slow
def test_train_reaches_98_percent_on_the_full_set(full_mnist_dir: Path) -> None:
    done = command("train", "mlp", "--json", "--data", str(full_mnist_dir))
    assert done.returncode == 0, done.stderr
    *epochs, last = json_lines(done.stdout)
    assert len(epochs) == 10 and last["test_accuracy"] >= 0.98


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_interrupted_training_saves_and_ends_with_130(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    arguments = ["train", "mlp", "--hidden", "32", "--epochs", "1000", "--json", "--save", str(file)]
    process = subprocess.Popen(
        [sys.executable, "-m", "graphc", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(graphc.__file__).parent.parent)},
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["epoch"] == 1  # training is going on
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.splitlines() == [f"parameters written to {file}", "graphc: interrupted"]
    assert "test_accuracy" not in out
    assert load_arrays(file)["0.weight"].shape == (32, 784)


def test_unwritable_save_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "missing" / "x.safetensors", tmp_path):
        assert main([*TRAIN, "--save", str(path)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith("graphc: error: --save")


# bench


def test_bench_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "mlp_small", "--seconds", "0.05", "--json"]) == 0
    (line,) = json_lines(capsys.readouterr().out)
    assert line["system"] == "graphc" and line["workload"] == "mlp_small" and line["threads"] >= 1
    assert 0 < line["min_ms"] <= line["median_ms"] < line["first_ms"]
    assert {"steps", "gflops", "share_of_peak", "from_cache"} <= line.keys()


def test_bench_tunes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def measure(kernel: Kernel, schedules: Sequence[Schedule]) -> list[float]:
        asked.append(kernel.name)
        return [1e-6] * len(schedules)

    monkeypatch.setattr(tuning, "measure", measure)
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert main(["bench", "mlp_small", "--seconds", "0.05", "--tune", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tuned"] is True
    assert asked
    assert main(["bench", "peak", "--tune"]) == 2
    assert "--tune is for workloads that are compiled; peak has nothing to tune" in capsys.readouterr().err


def test_bench_of_more_threads_prints_nothing_but_its_line() -> None:
    done = command("bench", "mlp_small", "--threads", "2", "--seconds", "0.05", "--json")
    assert done.returncode == 0
    (line,) = json_lines(done.stdout)
    assert line["threads"] == 2
    assert all(text.startswith("graphc: warning: ") for text in done.stderr.splitlines())


def test_bench_text_and_peak(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "mlp_small", "--seconds", "0.05"]) == 0
    assert capsys.readouterr().out.startswith("mlp_small: median ")
    assert main(["bench", "peak", "--seconds", "0.06", "--json"]) == 0
    (line,) = json_lines(capsys.readouterr().out)
    assert line["workload"] == "peak" and line["fma_gflops"] > 1 and line["triad_gbytes_s"] > 0.1


def test_second_process_starts_without_the_compiler(tmp_path: Path) -> None:
    """Training with a cached program loads neither Numba nor SymPy."""
    code = (
        "import sys\nfrom graphc.cli import main\n"
        f"code = main({[*TRAIN, '--json']!r})\n"
        "print(code, 'numba' in sys.modules, 'sympy' in sys.modules)"
    )
    root = str(Path(graphc.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "GRAPHC_CACHE": str(tmp_path / "cache")}
    last = ""
    for _ in range(2):
        run = [sys.executable, "-c", code]
        done = subprocess.run(run, capture_output=True, text=True, env=environment, timeout=TIMEOUT)
        assert done.returncode == 0, done.stderr
        last = done.stdout.splitlines()[-1]
    assert last == "0 False False"


# inspect


def test_inspect_lists_stages_and_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "mlp_small"]) == 0
    text = capsys.readouterr().out
    assert "differentiate" in text and "matmul" in text and "arena" in text
    assert main(["inspect", "mlp_small", "--json"]) == 0
    (found,) = json_lines(capsys.readouterr().out)
    assert all(kernel["name"] in text for kernel in found["kernels"])


def test_inspect_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "mlp_small", "--stage", "declared"]) == 0
    assert "grad(" in capsys.readouterr().out
    assert main(["inspect", "mlp_small", "--stage", "cse", "--diff"]) == 0
    assert "--- before" in capsys.readouterr().out


def test_inspect_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "mlp_small", "--json"]) == 0
    name = json_lines(capsys.readouterr().out)[0]["kernels"][0]["name"]
    assert main(["inspect", "mlp_small", "--kernel", name]) == 0
    shown = capsys.readouterr().out
    assert f"def {name}(args, thread, threads):" in shown and shown.count(f"kernel {name}(") == 1
    assert main(["inspect", "mlp_small", "--kernel", name, "--llvm"]) == 0
    assert "define" in capsys.readouterr().out
    assert main(["inspect", "mlp_small", "--kernel", name, "--asm", "--json"]) == 0
    (found,) = json_lines(capsys.readouterr().out)
    assert ".text" in found["asm"] and found["name"] == name


def test_inspect_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "mlp_small", "--dump", str(tmp_path), "--json"]) == 0
    (found,) = json_lines(capsys.readouterr().out)
    assert found == {"page": str(tmp_path / "index.html")} and (tmp_path / "index.html").is_file()
    assert list((tmp_path / "kernels").glob("*.py"))


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "graphc", "inspect", "mlp_small"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(graphc.__file__).parent.parent), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(TIMEOUT) == 0 and error == ""


# doctor


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "self-test" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    (found,) = json_lines(capsys.readouterr().out)
    assert found["ok"] is True and {"subject", "state", "detail"} == found["findings"][0].keys()


def test_doctor_fails_where_something_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHC_DATA", str(tmp_path))
    assert main(["doctor", "--json"]) == 1
    (found,) = json_lines(capsys.readouterr().out)
    assert found["ok"] is False
    assert [f["subject"] for f in found["findings"] if f["state"] == "failure"] == ["mnist"]


# Bad arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["frobnicate"], "'frobnicate'"),
        (["train"], "required: model"),
        (["train", "cnn"], "'cnn'"),
        (["train", "mlp", "--lr", "0"], "--lr: 0 is not a finite number above 0"),
        (["train", "mlp", "--lr", "nan"], "--lr: nan"),
        (["train", "mlp", "--epochs", "0"], "--epochs: 0 is below 1"),
        (["train", "mlp", "--epochs", "some"], "--epochs: 'some' is no integer"),
        (["train", "mlp", "--hidden", "10,x"], "--hidden: 'x' is no integer"),
        (["train", "mlp", "--seed", "-1"], "--seed: -1 is below 0"),
        (["train", "mlp", "--validation", "1"], "--validation: 1 is not in"),
        (["bench", "mlp", "--seconds", "inf"], "--seconds: inf"),
        (["bench", "mlp", "--threads", "0"], "--threads: 0 is below 1"),
        (["inspect", "mlp", "--stage", "cse", "--kernel", "x"], "not allowed with"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.out == ""
    assert message in captured.err and captured.err.count("\n") == 1 and "--help`" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "mlp", "--data", "/no/such/folder"], "train-images-idx3-ubyte not found"),
        (["inspect", "alexnet"], "unknown model 'alexnet'"),
        (["inspect", "mlp_small", "--stage", "nothing"], "there is no pass 'nothing'"),
        (["inspect", "mlp_small", "--kernel", "nothing"], "there is no kernel 'nothing'"),
        (["inspect", "mlp_small", "--diff"], "--diff needs --stage"),
        (["inspect", "mlp_small", "--asm"], "need --kernel"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("graphc: error: ")
    assert message in captured.err and captured.err.count("\n") == 1


def test_interrupt_anywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphc.inspect.doctor.examine", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "graphc: interrupted\n"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for option, expected in (("--version", graphc.__version__), ("--help", "doctor")):
        with pytest.raises(SystemExit) as stopped:
            main([option])
        assert stopped.value.code == 0 and expected in capsys.readouterr().out
