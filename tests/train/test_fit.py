from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import (
    AttributeValueError,
    DTypeError,
    GradientError,
    InputError,
    NumericalWarning,
    ShapeError,
    StateError,
)
from graphc.train.callbacks import LambdaCallback

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 6)).astype(np.float32)
Y = X[:, :3].argmax(1)


def classifier(optimizer=None, dropout: float = 0.0, seed: int = 0, **options) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))
    model.compile("cross_entropy", optimizer or optim.SGD(0.5, 0.9), ["accuracy"], seed=seed, **options)
    return model


def reference(model: nn.Sequential, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Loss and accuracy in NumPy."""
    s = model.state_dict()
    z = np.tanh(x @ s["0.weight"].T + s["0.bias"]) @ s["3.weight"].T + s["3.bias"]
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    return float(-log_p[np.arange(len(y)), y].mean()), float((z.argmax(1) == y).mean())


def test_history_has_a_value_an_epoch_and_the_model_learns() -> None:
    model = classifier()
    history = model.fit(X, Y, epochs=12, batch_size=32, validation_data=(X[:20], Y[:20]), verbose=0)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(len(values) == 12 for values in history.history.values())
    assert history.epoch == list(range(12)) and len(history.seconds) == 12
    assert history.history["loss"][-1] < 0.35 * history.history["loss"][0]
    assert history.history["accuracy"][-1] > 0.9
    assert model.history is history and "12 epochs" in repr(history)


def test_epoch_values_are_means_over_rows() -> None:
    """With a learning rate of 0 the epoch's loss is that of all rows, though the last batch has 4 rows of 32."""
    model = classifier(optim.SGD(0.0))
    history = model.fit(X, Y, batch_size=32, verbose=0).history
    loss, accuracy = reference(model, X, Y)
    assert history["loss"] == [pytest.approx(loss, rel=1e-5)]
    assert history["accuracy"] == [pytest.approx(accuracy, rel=1e-6)]
    for batch_size in (None, 7, 1000):
        assert model.evaluate(X, Y, batch_size=batch_size) == {
            "loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx(accuracy, rel=1e-6)}  # fmt: skip


def test_predict_of_any_length_in_one_compiled_program() -> None:
    model = classifier()
    whole = model.predict(X, batch_size=64)
    program = model.program("predict")
    assert whole.shape == (100, 3) and whole.dtype == np.float32
    for n in (1, 37, 64, 65):
        np.testing.assert_array_equal(model.predict(X[:n]), whole[:n])
    assert model.program("predict") is program
    assert model.predict(X[:3], batch_size=10**9).shape == (3, 3)  # no room for a billion rows is asked for


def test_the_same_seed_gives_the_same_bits() -> None:
    runs = []
    for seed in (0, 0, 1):
        model = classifier(dropout=0.2, seed=seed)
        model.fit(X, Y, epochs=3, batch_size=32, verbose=0)
        runs.append(model.state_dict())
    for name, array in runs[0].items():
        np.testing.assert_array_equal(runs[1][name], array)
        assert not np.array_equal(runs[2][name], array)


def test_fits_in_pieces_equal_one_fit() -> None:
    """The optimiser's state, the steps of the random numbers and the order of rows go on."""
    one, two = classifier(dropout=0.2), classifier(dropout=0.2)
    losses = one.fit(X, Y, epochs=4, batch_size=32, verbose=0).history["loss"]
    parts = [two.fit(X, Y, epochs=k, batch_size=32, verbose=0).history["loss"] for k in (1, 3)]
    assert losses == [*parts[0], *parts[1]]


def test_shuffling_is_seeded_and_can_be_off() -> None:
    def first_loss(**options) -> float:
        return classifier().fit(X, Y, batch_size=10, verbose=0, **options).history["loss"][0]

    assert first_loss(seed=1) == first_loss(seed=1) != first_loss(seed=2)
    assert first_loss(shuffle=False, seed=1) == first_loss(shuffle=False, seed=2)


def test_twenty_steps_equal_torch() -> None:
    torch = pytest.importorskip("torch")
    for mine, theirs in (
        (optim.SGD(0.2, 0.9, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.2, 0.9, weight_decay=0.01)),
        (optim.Adam(0.02), lambda p: torch.optim.Adam(p, 0.02)),
    ):
        model = classifier(mine)
        net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Dropout(0.0), torch.nn.Linear(8, 3))
        net.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
        optimizer, losses = theirs(net.parameters()), []
        for _ in range(4):
            total = 0.0
            for start in (0, 25, 50, 75, 100):  # the last batch has one row
                rows = slice(start, start + 25)
                x, t = torch.tensor(np.append(X, X[:1], 0)[rows]), torch.tensor(np.append(Y, Y[0])[rows])
                loss = torch.nn.functional.cross_entropy(net(x), t)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(x)
            losses.append(total / 101)
        found = model.fit(np.append(X, X[:1], 0), np.append(Y, Y[0]), epochs=4, batch_size=25, shuffle=False, verbose=0)
        np.testing.assert_allclose(found.history["loss"], losses, rtol=1e-4)
        for name, array in model.state_dict().items():
            np.testing.assert_allclose(array, net.state_dict()[name].numpy(), rtol=1e-4, atol=1e-6)


def test_validation_split_takes_the_last_rows() -> None:
    a, b = classifier(), classifier()
    split = a.fit(X, Y, epochs=2, validation_split=0.2, verbose=0).history
    given = b.fit(X[:80], Y[:80], epochs=2, validation_data=(X[80:], Y[80:]), verbose=0).history
    assert split == given


def test_dtypes_of_data() -> None:
    images, labels = RNG.integers(0, 256, (40, 2, 3), dtype=np.uint8), Y[:40]
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    model.compile("cross_entropy", optim.SGD(0.0))
    losses = []
    for x in (images, images.astype(np.float64), images.astype(np.float32)):
        for y in (labels.astype(np.uint8), labels.astype(np.int64), labels.astype(np.int32)):
            losses.append(model.fit(x, y, verbose=0, shuffle=False).history["loss"][0])
    assert len(set(losses)) == 1
    np.testing.assert_array_equal(model.predict(images), model.predict(images.astype(np.float32)))


def test_without_targets_the_inputs_are_the_targets() -> None:
    model = nn.Sequential(nn.Linear(6, 6))
    model.compile("mse", optim.Adam(0.05))
    losses = model.fit(X, epochs=20, batch_size=50, verbose=0, validation_data=(X,)).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
    assert model.evaluate(X)["loss"] == pytest.approx(float(((model.predict(X) - X) ** 2).mean()), rel=1e-4)


class Sum(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 1)

    def forward(self, a, b):
        z = self.fc(a)
        return z + b, z


def test_several_inputs_and_outputs() -> None:
    model = Sum()
    model.compile(lambda outputs, target: gc.mse_loss(outputs[0], target), optim.SGD(0.1))
    b = RNG.normal(size=(100, 1)).astype(np.float32)
    assert model.fit((X, b), b + 1, epochs=2, verbose=0).history["loss"][1] > 0
    first, second = model.predict((X, b))
    np.testing.assert_allclose(first, second + b, rtol=1e-5, atol=1e-6)


def test_state_updates_run_in_training_only() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.steps = nn.Linear(6, 3), gc.state("steps")

        def forward(self, x):
            if nn.is_training():
                nn.update_state(self.steps, self.steps + 1)
            return self.fc(x)

    model = Counter()
    model.compile("cross_entropy", optim.SGD(0.1))
    model.fit(X, Y, epochs=2, batch_size=30, validation_split=0.1, verbose=0)
    model.predict(X)
    assert model.state_dict()["steps"] == 6


def test_programs_share_parameters_and_the_learning_rate_is_a_runtime_scalar() -> None:
    model = classifier()
    model.fit(X, Y, verbose=0)
    train, predict = model.program("train"), model.program("predict", X)
    before = predict(X[:5])[0]
    rates = []
    callback = LambdaCallback(
        on_epoch_begin=lambda training, epoch: setattr(training.optimizer, "lr", 0.0),
        on_epoch_end=lambda training, epoch, logs: rates.append(training.optimizer.lr),
    )
    model.fit(X, Y, epochs=1, verbose=0)
    after = predict(X[:5])[0]
    assert not np.array_equal(before, after)
    state = model.state_dict()
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callback])
    assert rates == [0, 0] and model.program("train") is train
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_an_interrupt_leaves_parameters_of_a_whole_step() -> None:
    steps = []

    def interrupt(training, batch, logs):
        steps.append(training.model.state_dict())
        if len(steps) == 3:
            raise KeyboardInterrupt

    model, other = classifier(), classifier()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, epochs=5, batch_size=20, verbose=0, callbacks=[LambdaCallback(on_batch_end=interrupt)])
    order = gc.data.Batches((X,), 20, True, 0).order(0)[:60]
    other.fit(X[order], Y[order], batch_size=20, shuffle=False, verbose=0)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, other.state_dict()[name])
    assert model.history.epoch == []
    assert len(model.fit(X, Y, epochs=1, verbose=0).epoch) == 1


def test_ctrl_c_at_any_time_leaves_parameters_of_a_whole_step() -> None:
    x, y = np.tile(X, (200, 1)), np.tile(Y, 200)
    model, other = classifier(), classifier()
    model.fit(X, Y, epochs=1, batch_size=10, verbose=0)  # compiled, so that the signal comes while it trains
    other.load_state_dict(model.state_dict())
    other.compile("cross_entropy", optim.SGD(0.05))
    model.compile("cross_entropy", optim.SGD(0.05))
    model.program("train", x, y, batch_size=10)
    before = model[0].weight.version
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    callback = LambdaCallback(on_train_begin=lambda training: timer.start())
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=10_000, batch_size=10, shuffle=False, verbose=0, callbacks=[callback])
    timer.join()
    steps = model[0].weight.version - before
    assert steps > 0
    rows = np.arange(10 * steps) % len(x)
    other.fit(x[rows], y[rows], batch_size=10, shuffle=False, verbose=0)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, other.state_dict()[name])


def test_labels_out_of_range_are_found_before_the_first_update() -> None:
    model = classifier()
    before = model.state_dict()
    for bad in (3, -1):
        labels = Y.copy()
        labels[97] = bad
        with pytest.raises(InputError, match=rf"y\[97\] is {bad}, outside 0 ... 2(.|\n)*nothing was trained"):
            model.fit(X, labels, batch_size=10, verbose=0)
        with pytest.raises(InputError, match=r"y\[97\]"):
            model.fit(X, Y, validation_data=(X, labels), verbose=0)
        with pytest.raises(InputError, match="y"):
            model.evaluate(X, labels)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (lambda m: m.fit(X, Y[:50]), InputError, ["different numbers of rows", "x [100, 6]", "y [50]"]),
        (lambda m: m.fit(X[:0], Y[:0]), InputError, ["no rows"]),
        (lambda m: m.fit(3.0, Y), InputError, ["rows on axis 0"]),
        (lambda m: m.fit(np.array(["a"]), Y), InputError, ["array of numbers"]),
        (lambda m: m.fit(X, Y, batch_size=0), InputError, ["batch_size must be at least 1"]),
        (lambda m: m.fit(X, Y, epochs=-1), InputError, ["epochs"]),
        (lambda m: m.fit(X, Y, validation_split=1.5), InputError, ["fit: validation_split 1.5"]),
        (lambda m: m.fit(X[:1], Y[:1], validation_split=0.5), InputError, ["validation_split 0.5 of 1 rows"]),
        (lambda m: m.fit(X, Y, validation_split=0.1, validation_data=(X, Y)), AttributeValueError, ["not both"]),
        (lambda m: m.fit(X, Y, validation_data=X), InputError, ["(x_val, y_val)"]),
        (lambda m: m.fit(X, Y, validation_data=(X[:, :5], Y)), InputError, ["differ in shape", "[100, 5]"]),
        (lambda m: m.fit(X, Y, verbose="loud"), AttributeValueError, ["'loud'"]),
        (lambda m: m.fit(X[:, :5], Y), ShapeError, ["matmul", "in module 0"]),
        (lambda m: m.fit(X, Y.astype(np.float32)), DTypeError, ["cross_entropy", "int32"]),
        (lambda m: m.program("train"), InputError, ["shapes are not known"]),
        (lambda m: m.program("test"), AttributeValueError, ["'test'", "train, evaluate, predict"]),
        (lambda m: m.compile("hinge"), AttributeValueError, ["'hinge'", "cross_entropy"]),
        (lambda m: m.compile("mse", metrics=["f1"]), AttributeValueError, ["'f1'", "accuracy"]),
        (lambda m: m.compile("mse", metrics=["mae", "mae"]), AttributeValueError, ["two metrics"]),
        (lambda m: m.compile("mse", "adamw2"), AttributeValueError, ["optim.SGD", "'adamw2'"]),
        (lambda m: m.compile("mse", metrics="f1"), AttributeValueError, ["'f1'", "accuracy"]),
        (lambda m: m.fit(X, Y, verbose=0) and m.predict(X[0]), InputError, ["x [6] is one row", "x[None]"]),
        (lambda m: m.compile("mse") or m.fit(X, X[:, :3]), StateError, ["no optimizer"]),
        (lambda m: m.compile(lambda z, t: z, optim.SGD(0.1)) or m.fit(X, Y), ShapeError, ["scalar"]),
        (lambda m: nn.Sequential(nn.Linear(6, 3)).fit(X, Y), StateError, [".compile(loss"]),
        (lambda m: nn.Sequential(nn.Linear(6, 3)).evaluate(X, Y), StateError, [".compile(loss"]),
    ],
)  # fmt: skip
def test_bad_calls(use, error, words) -> None:
    with pytest.raises(error) as caught:
        use(classifier())
    for word in words:
        assert word in str(caught.value)


def test_a_loss_that_is_no_number_is_warned_about_once() -> None:
    model = nn.Sequential(nn.Linear(6, 1))
    model.compile("mse", optim.SGD(1e30))
    with pytest.warns(NumericalWarning, match="lower the learning rate") as caught:
        model.fit(X, X[:, :1], epochs=3, verbose=0)
    assert len([w for w in caught if w.category is NumericalWarning]) == 1
    assert caught[0].filename == __file__


def test_a_loss_function_and_a_metric_of_the_users() -> None:
    def worst(outputs, targets):
        return gc.max(gc.abs(outputs - targets))

    model = nn.Sequential(nn.Linear(6, 2))
    model.compile(lambda z, t: gc.mean(gc.abs(z - t)), optim.SGD(0.01), [worst, "mae"])
    history = model.fit(X, X[:, :2], batch_size=100, verbose=0).history
    assert list(history) == ["loss", "worst", "mae"]
    assert history["worst"][0] > history["mae"][0] == pytest.approx(history["loss"][0], rel=1e-5)


def test_names_for_the_optimiser_and_a_single_metric() -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    model.compile("cross_entropy", "adam", "accuracy")
    history = model.fit(X, Y, epochs=3, verbose=0).history
    assert list(history) == ["loss", "accuracy"] and history["loss"][-1] < history["loss"][0]
    model.compile("cross_entropy", "sgd", gc_accuracy)
    assert list(model.fit(X, Y, verbose=0).history) == ["loss", "gc_accuracy"]


def gc_accuracy(outputs, targets):
    return gc.mean(gc.equal(gc.argmax(outputs, 1), targets.astype("int64")))


def test_binary_accuracy() -> None:
    t = (X[:, :1] > 0).astype(np.float32)
    model = nn.Sequential(nn.Linear(6, 1))
    model.compile("binary_cross_entropy_with_logits", optim.SGD(1.0), ["binary_accuracy"])
    assert model.fit(X, t, epochs=20, verbose=0).history["binary_accuracy"][-1] > 0.95
    expected = ((model.predict(X) > 0) == (t > 0)).mean()
    assert model.evaluate(X, t)["binary_accuracy"] == pytest.approx(expected)


def test_program_of_each_kind_and_its_inputs() -> None:
    model = classifier()
    train = model.program("train", X, Y, batch_size=16)
    assert [i.name for i in train.declared.inputs] == ["x", "y"] and len(train(X[:16], Y[:16])) == 2
    assert model.program("evaluate")(X[:3], Y[:3])[1].shape == ()
    assert model.program("predict")(X[:3])[0].shape == (3, 3)


def test_a_prediction_does_not_tell_the_shape_of_targets() -> None:
    model = classifier()
    model.predict(X)
    assert model.program("predict")(X[:2])[0].shape == (2, 3)
    with pytest.raises(InputError, match="not known yet"):
        model.program("train")


def test_an_epoch_count_of_zero_compiles_but_trains_nothing() -> None:
    model = classifier()
    before = model.state_dict()
    assert model.fit(X, Y, epochs=0, verbose=0).history == {}
    np.testing.assert_array_equal(model.state_dict()["0.weight"], before["0.weight"])


def test_summary(capsys) -> None:
    model = classifier()
    model.summary()
    assert "?" in capsys.readouterr().out
    model.predict(X)
    model.summary()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith("3 ")] == [["3", "Linear", "[N,3]", "27"]]
    assert "parameters: 83   state: 0   bytes: 332" in lines[-1]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": -1}, "at least 0"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"callbacks": [3]}, "callbacks must be objects"),
    ],
)
def test_options_of_the_wrong_kind_are_named(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        classifier().fit(X, Y, verbose=0, **options)


def test_rows_of_different_lengths_are_no_data() -> None:
    with pytest.raises(InputError, match="no rectangular array"):
        classifier().fit([[1.0, 2.0], [3.0]], [0, 1], verbose=0)


def test_a_parameter_that_the_model_never_uses_is_named_by_its_path() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            return self.used(x)

    model = Idle()
    model.compile("cross_entropy", optim.SGD(0.1))
    with pytest.raises(GradientError, match="idle.weight; use the layer in forward, or remove the attribute"):
        model.fit(X, Y, verbose=0)


class Replaceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x))


def test_a_replaced_module_is_used_by_all_programs() -> None:
    model = Replaceable()
    model.compile("cross_entropy", optim.SGD(0.5, 0.9))
    model.fit(X, Y, verbose=0)
    model.predict(X), model.evaluate(X, Y)
    model.head = nn.Linear(4, 5)
    s = model.state_dict()
    z = (X @ s["body.weight"].T + s["body.bias"]) @ s["head.weight"].T + s["head.bias"]
    np.testing.assert_allclose(model.predict(X), z, rtol=1e-4, atol=1e-5)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    assert model.evaluate(X, Y)["loss"] == pytest.approx(-log_p[np.arange(100), Y].mean(), rel=1e-4)
    old = model.head
    model.head = nn.Linear(4, 3)
    before, kept = model.state_dict(), old.weight.value
    train = model.program("train")
    model.fit(X, Y, verbose=0)
    assert model.program("train") is train
    assert not np.array_equal(model.head.weight.value, before["head.weight"])
    np.testing.assert_array_equal(old.weight.value, kept)


def test_a_replaced_parameter_and_a_module_replaced_by_a_callback_are_noticed() -> None:
    model = Replaceable()
    model.compile("cross_entropy", optim.SGD(0.1))
    model.predict(X)
    model.head.bias = gc.param("bias", (3,), init=7)
    model.head.weight.value = np.zeros((3, 4))
    np.testing.assert_array_equal(model.predict(X), np.full((100, 3), 7, np.float32))

    def freshen(training, epoch):
        if epoch == 1:
            training.model.head = nn.Linear(4, 3)

    model.fit(X, Y, epochs=2, verbose=0, callbacks=[LambdaCallback(on_epoch_begin=freshen)])
    assert model.head.weight.version == 4  # the steps of the second epoch


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy_with_logits", gc.mse_loss])
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_integer_targets_of_losses_over_real_numbers(loss, dtype) -> None:
    t, losses = (X[:, :1] > 0).astype(dtype), []
    for targets in (t, t.astype(np.float32)):
        model = nn.Sequential(nn.Linear(6, 1))
        model.compile(loss, optim.SGD(0.1))
        history = model.fit(X, targets, epochs=2, validation_data=(X, targets), verbose=0).history
        losses.append([history["loss"], history["val_loss"], model.evaluate(X, targets)["loss"]])
    assert losses[0] == losses[1]


def test_the_capacity_of_an_evaluation_does_not_change_the_training_program() -> None:
    model = classifier()
    model.fit(X, Y, batch_size=50, verbose=0)
    train = model.program("train")
    model.evaluate(X, Y, batch_size=7)
    model.predict(X, batch_size=3)
    assert model.program("train") is train
    assert model.program("evaluate") is model.program("evaluate", X, Y, batch_size=7)
    assert model.program("predict") is model.program("predict", X, batch_size=3)
