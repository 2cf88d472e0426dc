"""gc.print and gc.assert_: what compiled programs show and refuse."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import AssertionFailed, SymbolError

AT = np.array([1.0, 2.0, 4.0], np.float32)


@pytest.fixture
def x():
    return gc.input("x", ("N",))


def test_print_is_a_statement(x, capsys) -> None:
    h = x * 2
    y = gc.sum(h)
    assert gc.print(h, "twice") is h  # after its reader was declared
    program = gc.compile([x], [y])
    assert program(AT)[0] == 14 and len(program(AT)) == 1
    assert capsys.readouterr().out == "twice: [2. 4. 8.]\n" * 2
    assert gc.compile([x], [gc.max(x)])(AT)[0] == 4  # which does not compute h
    assert capsys.readouterr().out == ""


def test_print_shows_inputs_parameters_and_parts_of_batches(x, capsys) -> None:
    w = gc.param("w", (), init=3.0)
    gc.print(x)
    gc.print(w)
    step = gc.compile([x], [gc.sum(w * x)], {w: w + 1})
    step(AT)
    step(AT[:1])
    assert capsys.readouterr().out.splitlines() == ["x: [1. 2. 4.]", "w: 3.", "x: [1.]", "w: 4."]


def test_print_passes_gradients_and_needs_no_result(x, capsys) -> None:
    y = gc.exp(gc.print(x * 1.0, "x"))
    assert gc.compile([x], [gc.grad(gc.sum(y), x)])(np.zeros(1, np.float32))[0] == 1
    assert capsys.readouterr().out == "x: [0.]\n"


def test_print_in_a_model_is_shown_once_a_call(capsys) -> None:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = gc.param("scale", (1,), init=2.0)

        def forward(self, x):
            gc.print(self.scale, "scale")
            return gc.print(x * self.scale, "out")

    net = Net()
    for _ in range(2):
        net.predict(np.ones((1, 1), np.float32))
    net.compile(loss="mse", optimizer=optim.SGD(lr=0.0))
    capsys.readouterr()
    net.fit(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), epochs=1, batch_size=1, verbose=0)
    assert sorted(capsys.readouterr().out.splitlines()) == ["out: [[2.]]", "scale: [2.]"]


def test_assertions_hold_back_every_update(x) -> None:
    w, n = gc.param("w", (2,), init=[1.0, -1.0]), gc.state("n", (), dtype="int32")
    gc.assert_(x > 0, "x must be positive")
    step = gc.compile([x], [gc.sum(x)], {w: w * gc.sum(x), n: n + 1})
    assert step(AT)[0] == 7
    with pytest.raises(
        AssertionFailed,
        match=r"(?s)x must be positive: false at 2 elements of bool\[N\]; variables are .*test_watch.py",
    ):
        step(np.array([-1.0, 2.0, 0.0], np.float32))
    np.testing.assert_array_equal(w.value, [7, -7])
    assert n.value == 1
    step(AT[:2])
    assert n.value == 2 and w.value[0] == 21


def test_assertions_are_python_assertions_and_prints_come_first(x, capsys) -> None:
    gc.print(x, "x")
    gc.assert_(gc.sum(x) < 5, "too much")
    program = gc.compile([x], [gc.exp(x)])
    with pytest.raises(AssertionError, match="too much: false at 1 element of bool"):
        program(AT)
    assert capsys.readouterr().out == "x: [1. 2. 4.]\n"


def test_assertions_are_made_where_all_they_read_is_there(x) -> None:
    w, t = gc.param("w", (), init=1.0), gc.input("t", ("N",))
    gc.assert_(gc.sum(w * x * t) > 0, "sign")
    np.testing.assert_array_equal(gc.compile([x], [w * x])(-AT)[0], -AT)
    with pytest.raises(AssertionFailed, match="sign"):
        gc.compile([x, t], [w * x])(AT, -AT)


def test_several_assertions_name_the_first_that_fails(x) -> None:
    gc.assert_(x < 3, "below three")
    gc.assert_(x > 1, "above one")
    with pytest.raises(AssertionFailed, match="below three"):
        gc.compile([x], [x + 1])(AT)
    with pytest.raises(AssertionFailed, match="above one"):
        gc.compile([x], [x + 1])(AT[:2])


def test_programs_from_the_cache_print_and_assert(x, capsys) -> None:
    gc.print(x * 3, "unused")
    y = gc.print(x * 5, "five")
    gc.assert_(y > 0, "positive")
    for _ in range(2):
        program = gc.compile([x], [y], name="watched")
        program(AT)
        with pytest.raises(AssertionFailed):
            program(-AT)
    assert program.from_cache
    assert capsys.readouterr().out.count("five:") == 4


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda x: gc.print(3.0), ["gc.print takes a symbol, got float"]),
        (lambda x: gc.assert_(x, "no"), ["bool symbol", "f32[N]"]),
        (lambda x: gc.assert_(True, "no"), ["bool symbol", "got bool"]),
        (lambda x: gc.assert_(gc.constant([1.0]) > 0, "no"), ["depends on no input"]),
        (
            lambda x: gc.custom_vjp(lambda v: v, lambda g, y, v: gc.print(g * 2.0, "g"))(x),
            ["inside a custom gradient", "operands"],
        ),
    ],
)
def test_what_cannot_be_watched(declare, words, x) -> None:
    with pytest.raises(SymbolError) as caught:
        declare(x)
    for word in words:
        assert word in str(caught.value)
