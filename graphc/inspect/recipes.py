"""Contractions as whole programs get them: steps of the ten workloads at several batches, and their kernel forms.

What a contraction's kernel is depends on the program around it: what is fused into its store, in which layouts its
operands lie, whether its reduction is cut. So a recipe is a program that is planned as a whole, not compiled, and its
kernels are taken from the plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from graphc import models, nn, optim
from graphc.codegen.build import optimise
from graphc.codegen.contraction import contractions
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host
from graphc.codegen.lower import Names, lower_graph
from graphc.codegen.memory import Signature, plan_program
from graphc.dsl.activations import relu, sigmoid
from graphc.dsl.collect import collect
from graphc.dsl.control import scan
from graphc.dsl.elementwise import tanh
from graphc.dsl.initialisers import normal, uniform
from graphc.dsl.losses import cross_entropy
from graphc.dsl.shaping import zeros
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import input, param
from graphc.inspect.workloads import SEQUENCES, STEPS, TOKENS, WORKLOADS, Step
from graphc.kernel.compose import anonymous
from graphc.kernel.form import Kernel
from graphc.kernel.text import print_kernel
from graphc.ops.scan import length_symbols


@dataclass(frozen=True)
class Recipe:
    """A program to take contractions from. dims: its sizes; kernels: a pattern that their names match."""

    name: str
    declare: Callable[[], Step]
    dims: Mapping[str, int]
    kernels: str = ""


def contraction_forms(recipe: Recipe, machine: Host) -> dict[str, Kernel]:
    """The contractions of a recipe's program when it is planned for a machine, by their kernels' names.

    Of kernels that differ in names only there is the first.
    """
    step = recipe.declare()
    declared = collect(step.inputs, step.results, step.updates)
    lengths = {name: recipe.dims[name] for name in length_symbols(declared.graph)}
    capacities = {name: size for name, size in recipe.dims.items() if name not in lengths}
    graph, _ = optimise(declared.graph, sizes=lengths)
    names = Names()
    lowered = lower_graph(graph, capacities, names)
    variables = {variable: name for name, variable in declared.named_variables.items()}
    updated = tuple(variables[variable] for variable in declared.updated)
    signature = Signature(frozenset(variables.values()), updated, "rng" if declared.uses_rng else None)
    planned = plan_program(graph, lowered, names, signature, capacities, machine=machine)
    found: dict[str, Kernel] = {}
    for kernel in planned.kernels:
        if re.search(recipe.kernels, kernel.name) and any(True for _ in contractions(schedulable(kernel))):
            found.setdefault(print_kernel(anonymous(kernel)), kernel)
    return {kernel.name: kernel for kernel in found.values()}


# ---- programs that `graphc bench` does not time -------------------------------------------------------------------


def _prediction() -> Step:
    x = input("x", ("N", 784))
    with nn.trace(model := models.mlp(784, 512, 512, 10), train=False):
        return Step([x], [model(x)], {})


def _residual() -> Step:
    """The different convolutions of the CIFAR ResNet-20 (He et al. 2015), with 1x1 shortcuts, one after the other.

    Without batch normalisation, which no contraction holds.
    """
    x, t = input("x", ("N", 3, 32, 32)), input("t", ("N",), "int64")
    first = nn.Conv2d(3, 16, 3, padding=1)
    blocks = [_Block(before, after) for before, after in ((16, 16), (16, 32), (32, 64))]
    model = nn.Sequential(first, nn.ReLU(), *blocks, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))
    with nn.trace(model, train=True):
        loss = cross_entropy(model(x), t)
    return Step([x, t], [loss], optim.SGD(lr=0.01, momentum=0.9).updates(loss, model.parameters()))


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the block halves the image."""

    def __init__(self, before: int, after: int) -> None:
        stride = 1 if before == after else 2
        self.one = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.two = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False) if stride > 1 else None

    def forward(self, x: Symbol) -> Symbol:
        """`[N, before, H, W]` -> `[N, after, H / stride, W / stride]`."""
        return relu(self.two(relu(self.one(x))) + (x if self.shortcut is None else self.shortcut(x)))


Cell = Callable[..., tuple[Symbol, ...]]


def _sequence_model(width: int, gates: int, states: int, cell: Callable[[Symbol], Cell]) -> Step:
    """Embedding, a recurrent cell of several gates along the sequence, and logits of every next token.

    `cell` makes the cell of the recurrent weights [width, gates * width].
    """
    tokens, t = input("tokens", ("N", STEPS), "int64"), input("t", ("N", STEPS), "int64")
    root = 1 / width**0.5
    E = param("embedding", (TOKENS, width), init=normal(0.0, 1.0))
    W, U = (param(name, (width, gates * width), init=uniform(-root, root)) for name in "WU")
    V = param("V", (width, TOKENS), init=uniform(-root, root))
    b, d = param("b", (gates * width,)), param("d", (TOKENS,))
    x = (E[tokens] @ W + b).swapaxes(0, 1)
    start = [Symbol(zeros((tokens.shape[0], width))) for _ in range(states)]
    hs = scan(cell(U), sequences=[x], init=start)[-1]
    loss = cross_entropy((hs.swapaxes(0, 1) @ V + d).reshape(-1, TOKENS), t.reshape(-1))
    return Step([tokens, t], [loss], optim.SGD(lr=0.01, momentum=0.9).updates(loss, [E, W, b, U, V, d]))


def _lstm() -> Step:
    """Gates as in PyTorch's LSTM, width 256."""
    width = 256

    def with_weights(U: Symbol) -> Cell:
        def cell(h: Symbol, c: Symbol, x: Symbol) -> tuple[Symbol, ...]:
            gates = x + h @ U
            i, f, g, o = (gates[:, k * width : (k + 1) * width] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            return h, c, h

        return cell

    return _sequence_model(width, 4, 2, with_weights)


def _gru() -> Step:
    """Gates as in PyTorch's GRU, width 256."""
    width = 256

    def with_weights(U: Symbol) -> Cell:
        def cell(h: Symbol, x: Symbol) -> tuple[Symbol, ...]:
            recurrent = h @ U
            parts = [slice(k * width, (k + 1) * width) for k in range(3)]
            r, z = (sigmoid(x[:, part] + recurrent[:, part]) for part in parts[:2])
            n = tanh(x[:, parts[2]] + r * recurrent[:, parts[2]])
            h = (1 - z) * n + z * h
            return h, h

        return cell

    return _sequence_model(width, 3, 1, with_weights)


def _recipes() -> Iterator[Recipe]:
    def of(workload: str, batch: int, kernels: str = "") -> Recipe:
        return Recipe(f"{workload}-{batch}", WORKLOADS[workload].declare, {"N": batch}, kernels)

    yield Recipe("predict_mlp-1", _prediction, {"N": 1}, "v0|v2")
    yield of("mlp", 37, "v0_|v2_grad_matmul_where|v4_matmul_add$")
    yield of("mlp", 128)
    yield of("mlp_small", 32, "v0_|v2_matmul_add$")
    yield of("dae", 100)
    yield of("rbm", 100)
    yield of("infer_lenet", 1, "v[0379]_")
    yield of("lenet", 37, "v3_|v7_matmul")
    yield of("lenet", 64, "v[037]_|v9_matmul_add_relu")
    yield of("vgg_small", 32, "v(0|2|5|7|11)_")
    yield of("vgg_small", 100, "v5_")
    yield Recipe("resnet-32", _residual, {"N": 32}, "v0_contract|v2_two|v3_|v4_one")
    yield of("rnn", SEQUENCES, "scan_matmul|matmul_add$|grad_matmul_transpose|einsum")
    yield Recipe(f"lstm-{SEQUENCES}", _lstm, {"N": SEQUENCES}, "scan_matmul|matmul_add$|einsum")
    yield Recipe(f"gru-{SEQUENCES}", _gru, {"N": SEQUENCES}, "scan_matmul|einsum_add_mul_sub(_sums)?$")


RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _recipes()}
