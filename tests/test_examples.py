"""The examples run and print what they promise."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="example")


def test_every_example_has_a_test() -> None:
    tested = {name.removeprefix("test_") for name in globals()}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


def test_linear_regression(capsys: pytest.CaptureFixture[str]) -> None:
    weights, bias = load("linear_regression")["main"]()
    np.testing.assert_allclose(weights, [2, -3], atol=0.05)
    assert abs(bias - 0.5) < 0.05
    assert "mean squared error" in capsys.readouterr().out


def test_xor(capsys: pytest.CaptureFixture[str]) -> None:
    probabilities = load("xor")["main"]()
    np.testing.assert_allclose(probabilities, [0, 1, 1, 0], atol=0.1)
    assert "1 xor 1" in capsys.readouterr().out


def test_mlp_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("mlp_mnist")["main"](["--epochs", "1", "--hidden", "32"]) > 0.85
    printed = capsys.readouterr().out
    assert "first mistakes" in printed and "kernels" in printed


def test_logistic_regression(capsys: pytest.CaptureFixture[str]) -> None:
    before, after, weights = load("logistic_regression")["main"]()
    assert f"{before:.6f} {after:.6f}" == "2.772589 0.389008"
    np.testing.assert_allclose(weights, [0.574141, -0.222566, 1.136044], atol=1e-6)
    assert "not in the class" in capsys.readouterr().out


def test_taylor_sine(capsys: pytest.CaptureFixture[str]) -> None:
    found = load("taylor_sine")["main"]()
    assert "the gradient of sin(pi) is -0.999900\n" in capsys.readouterr().out
    for at, (value, slope) in found.items():
        np.testing.assert_allclose([value, slope], [np.sin(at), np.cos(at)], atol=2e-3)


def test_rbm_cd1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--epochs", "2", "--hidden", "32", "--images", "2000", "--pictures", str(tmp_path)]
    errors = load("rbm_cd1")["main"](arguments)
    assert errors[1] < errors[0] < 0.2 and errors[1] < 0.16
    assert {file.name for file in tmp_path.iterdir()} == {"rbm_filters.png", "rbm_reconstructions.png"}
    assert "epoch 2" in capsys.readouterr().out


def test_rbm_cd1_descends_by_the_textbook_rule() -> None:
    """dW = v h^T - v' h'^T and so on, means over the batch; v' and h' are told apart by the energies they enter."""
    module = load("rbm_cd1")
    rbm = module["RBM"].of(6, 4, np.full(6, 0.3))
    v, h, v_model, h_model = (gc.input(n, ("N", size)) for n, size in (("v", 6), ("h", 4), ("w", 6), ("k", 4)))
    difference = gc.mean(rbm.energy(v, h) - rbm.energy(v_model, h_model))
    program = gc.compile([v, h, v_model, h_model], gc.grad(difference, rbm.parameters))
    rng = np.random.default_rng(0)
    at = [rng.integers(0, 2, (5, size)).astype(np.float32) for size in (6, 4, 6, 4)]
    weights, visible, hidden = program(*at)
    np.testing.assert_allclose(weights, -(at[0].T @ at[1] - at[2].T @ at[3]) / 5, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(visible, -(at[0] - at[2]).mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(hidden, -(at[1] - at[3]).mean(0), rtol=1e-5, atol=1e-7)


def test_autoencoder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--epochs", "8", "--hidden", "32", "--images", "2000", "--pictures", str(tmp_path)]
    noisy, clean = load("autoencoder")["main"](arguments)
    assert clean < 0.95 * noisy
    assert (tmp_path / "denoised.png").is_file()
    assert "denoised" in capsys.readouterr().out


def test_activations(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load("activations")
    curves = example["main"]([])
    points = example["X"].astype(np.float64)
    assert len(curves) == 23 and "Hard sigmoid" in capsys.readouterr().out
    at = {x: int(np.abs(points - x).argmin()) for x in (-2, 0, 2)}
    for name, x, value, slope in (
        ("Leaky ReLU 0.01", -2, -0.02, 0.01), ("Leaky ReLU 0.1", -2, -0.2, 0.1), ("Sigmoid", 0, 0.5, 0.25),
        ("ELU", -2, np.expm1(-2), np.exp(-2)), ("Maxout", -2, -0.2, -0.4), ("Gaussian", 2, np.exp(-4), -4 * np.exp(-4)),
        ("Softmax of (x, 0)", 0, 0.5, 0.25), ("Log-softmax of (x, 0)", 0, -np.log(2), 0.5), ("Heaviside", 0, 1, 0),
    ):  # fmt: skip
        found = [curve[at[x]] for curve in curves[name]]
        np.testing.assert_allclose(found, [value, slope], atol=1e-5, err_msg=name)
    for name in ("Tanh", "SiLU", "GELU", "GELU by tanh", "Softplus", "SELU", "Softsign"):  # the slope is the value's
        value, slope = (curve.astype(np.float64) for curve in curves[name])
        differences = (value[2:] - value[:-2]) / (points[2:] - points[:-2])
        away = np.abs(points[1:-1]) > 0.05  # from the kinks
        np.testing.assert_allclose(slope[1:-1][away], differences[away], atol=2e-3, err_msg=name)

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match="pip install matplotlib"):
        example["draw"](curves, str(tmp_path / "curves.png"))


def test_activations_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs Matplotlib")
    load("activations")["main"](["--picture", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_custom_activation(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("custom_activation")["main"](["--epochs", "1"]) > 0.8
    printed = capsys.readouterr().out
    assert "mish(x) = x*tanh(softplus(x))" in printed and "fails in float32" in printed
    assert "matmul_add_mish" in printed


def test_circuits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pygraphviz")
    circuits = load("circuits")["main"](str(tmp_path / "pictures"))
    gradients = {name: np.round(float(g), 3) for name, g in circuits["neuron"].gradients.items() if g is not None}
    expected = {"w0": -0.197, "w1": -0.393, "w2": 0.197, "x0": 0.393, "x1": -0.59}
    assert expected.items() <= gradients.items()
    printed = capsys.readouterr().out
    assert "∂f/∂q = z = -4" in printed and "q receives 1 · (-4) = -4" in printed and "grad h @ Wᵀ" in printed
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {"neuron.svg", "layer.svg", "product_of_sum-0.svg", "product_of_sum-3.svg"} <= pictures


def test_lenet_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("lenet_mnist")["main"](["--epochs", "1", "--images", "3000"]) > 0.6
    printed = capsys.readouterr().out
    assert "the six filters" in printed
    assert "[n, c, y+ky-2, x+kx-2] [o, c, ky, kx] -> [n, o, y, x]" in printed
    assert "[n, c, y+ky-2, x+kx-2] [n, o, y, x] -> [o, c, ky, kx]" in printed
