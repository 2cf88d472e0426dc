from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import AttributeValueError, DataError, DefinitionError, StateError


class Block(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.fc = nn.Linear(n, n)
        self.scale = gc.param("scale", (n,), init=1)
        self.calls = gc.state("calls")

    def forward(self, x):
        if nn.is_training():
            nn.update_state(self.calls, self.calls + 1)
        return gc.relu(self.fc(x)) * self.scale


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(Block(4), Block(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.encoder(x))


NAMES = [
    "encoder.0.scale", "encoder.0.calls", "encoder.0.fc.weight", "encoder.0.fc.bias",
    "encoder.1.scale", "encoder.1.calls", "encoder.1.fc.weight", "encoder.1.fc.bias", "head.weight", "head.bias",
]  # fmt: skip


def test_names_are_paths_of_attributes() -> None:
    net = Net()
    assert list(net.state_dict()) == NAMES
    assert [v.name for _, v in net.named_variables()] == NAMES
    assert [n for n, _ in net.named_parameters()] == [n for n in NAMES if not n.endswith("calls")]
    assert len(net.parameters()) == 8
    assert [n for n, _ in net.named_modules()] == [
        "", "encoder", "encoder.0", "encoder.0.fc", "encoder.1", "encoder.1.fc", "head",
    ]  # fmt: skip
    assert [n for n, _ in net.named_children()] == ["encoder", "head"]


def test_names_and_shapes_equal_torch() -> None:
    torch = pytest.importorskip("torch")
    layers = lambda m: (m.Flatten(), m.Linear(12, 5), m.ReLU(), m.Dropout(0.2), m.Linear(5, 3, bias=False), m.Sigmoid())  # noqa: E731
    mine, theirs = nn.Sequential(*layers(nn)), torch.nn.Sequential(*layers(torch.nn))
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(mine.predict(x), theirs.eval()(torch.tensor(x)).detach().numpy(), rtol=1e-5)


def test_the_start_is_that_of_torch_in_distribution() -> None:
    layer = nn.Linear(400, 300)
    for array in layer.state_dict().values():
        assert np.abs(array).max() <= 1 / 20 and np.abs(array).max() > 0.048
        assert array.std() == pytest.approx(1 / 20 / np.sqrt(3), rel=0.15)


def test_equal_layers_start_differently_and_the_same_model_the_same() -> None:
    a, b = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    first, second = a.state_dict(), b.state_dict()
    assert not np.array_equal(first["0.weight"], first["1.weight"])
    np.testing.assert_array_equal(first["1.weight"], second["1.weight"])
    c = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    c.compile(seed=1)
    assert not np.array_equal(c.state_dict()["1.weight"], first["1.weight"])


def test_shared_modules_and_parameters_appear_once() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    assert list(model.state_dict()) == ["0.weight", "0.bias"] and len(model.parameters()) == 2
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert list(tied.state_dict()) == ["0.weight", "0.bias", "1.bias"]
    model.compile("mse", optim.SGD(0.1))
    model.fit(np.ones((4, 3)), np.ones((4, 3)), verbose=0)


def test_a_list_of_modules_is_refused_where_it_would_be_lost() -> None:
    net = Net()
    with pytest.raises(StateError, match=r"Net.layers is a list .* nn.ModuleList"):
        net.layers = [nn.Linear(2, 2)]
    with pytest.raises(StateError, match="dict"):
        net.heads = {"a": nn.Linear(2, 2)}
    net.sizes = [1, 2, 3]
    net.layers = nn.ModuleList(nn.Linear(2, 2), nn.Linear(2, 3))
    assert "layers.1.weight" in net.state_dict() and len(net.layers) == 2 and net.layers[-1].out_features == 3


def test_replaced_and_removed_attributes_are_gone() -> None:
    net = Net()
    net.head = nn.Linear(4, 7)
    assert net.state_dict()["head.weight"].shape == (7, 4)
    del net.encoder
    assert list(net.state_dict()) == ["head.weight", "head.bias"]


def test_load_state_dict_is_all_or_nothing() -> None:
    net = Net()
    before = net.state_dict()
    arrays = {k: v + 1 for k, v in before.items() if k != "head.bias"} | {"extra": np.zeros(1)}
    arrays["head.weight"] = np.zeros((4, 2))
    with pytest.raises(StateError) as caught:
        net.load_state_dict(arrays)
    for words in ("missing: head.bias", "unexpected: extra", "head.weight has shape [2,4]", "Nothing was loaded"):
        assert words in str(caught.value)
    with pytest.raises(StateError, match="head.weight"):
        net.load_state_dict(arrays, strict=False)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    arrays["head.weight"] = np.zeros((2, 4))
    assert net.load_state_dict(arrays, strict=False) == (["head.bias"], ["extra"])
    np.testing.assert_array_equal(net.state_dict()["encoder.0.scale"], 2)
    assert not net.head.weight.value.any() and np.array_equal(net.head.bias.value, before["head.bias"])


def test_save_and_load(tmp_path) -> None:
    net, other = Net(), Net()
    other.compile(seed=5)
    net.save(tmp_path / "net.safetensors")
    assert other.load(tmp_path / "net.safetensors") == ([], [])
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)
    with pytest.raises(StateError, match="missing: 0.weight"):
        nn.Sequential(nn.Linear(4, 4)).load(tmp_path / "net.safetensors")
    data = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-9])
    before = other.state_dict()
    with pytest.raises(DataError, match="truncated"):
        other.load(tmp_path / "cut.safetensors")
    np.testing.assert_array_equal(other.state_dict()["head.weight"], before["head.weight"])


def test_deep_copies_are_independent() -> None:
    net = Net()
    net.compile("mse", optim.SGD(0.1))
    net.predict(np.ones((2, 4)))
    other = copy.deepcopy(net)
    np.testing.assert_array_equal(other.predict(np.ones((2, 4))), net.predict(np.ones((2, 4))))
    other.head.bias.value = np.array([5.0, 5.0])
    assert (
        net.head.bias.value.max() < 5 and other.predict(np.zeros((1, 4)))[0, 0] != net.predict(np.zeros((1, 4)))[0, 0]
    )


def test_state_updates_are_part_of_a_training_program() -> None:
    net = Net()
    x = gc.input("x", ("N", 4))
    with nn.trace(net, train=True) as traced:
        y = net(x)
    assert [v.name for v in traced.updates] == ["encoder.0.calls", "encoder.1.calls"]
    step = gc.compile([x], [gc.sum(y)], updates=traced.updates)
    step(np.ones((3, 4)))
    step(np.ones((3, 4)))
    assert net.state_dict()["encoder.1.calls"] == 2
    with nn.trace(net) as traced:
        net(x)
    assert not traced.updates
    with pytest.raises(StateError, match="nn.trace"):
        nn.update_state(gc.state("s"), x)
    with nn.trace(net, train=True), pytest.raises(StateError, match="twice"):
        net(net(x))


def test_nodes_carry_the_modules_path() -> None:
    net = Net()
    result = net(gc.input("x", ("N", 4)))
    from graphc.ir.graph import topological

    modules = {node.origin.module for node in topological([result.ir])}
    assert modules == {"encoder.0", "encoder.0.fc", "encoder.1", "encoder.1.fc", "head"}


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(DefinitionError, match="ModuleList does not define forward; give it a method `def forward"):
        nn.ModuleList()(gc.input("x", (3,)))


def test_a_forward_without_return_says_so() -> None:
    class Silent(nn.Module):
        def forward(self, x: gc.Symbol) -> None:
            gc.relu(x)

    with pytest.raises(DefinitionError, match=r"Silent.forward returned None; end it with `return"):
        nn.Sequential(Silent())(gc.input("x", (3,)))


@pytest.mark.parametrize(
    ("name", "advice"),
    [("train", "fit trains"), ("eval", "predict do not"), ("zero_grad", "gc.grad"), ("to", "target")],
)
def test_methods_of_other_libraries_modules(name: str, advice: str) -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(AttributeError, match=f"Linear has no attribute '{name}': .*{advice}"):
        getattr(layer, name)
    assert not hasattr(layer, name)
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'unheard_of'"):
        layer.unheard_of  # noqa: B018


def test_an_attribute_error_in_a_property_is_not_hidden() -> None:
    class Wrong(nn.Module):
        @property
        def width(self) -> int:
            return self.missing.width

    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        Wrong().width  # noqa: B018


def test_repr_shows_the_tree() -> None:
    assert repr(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.1))) == (
        "Sequential(\n  (0): Linear(3, 2, bias=True)\n  (1): Dropout(p=0.1)\n)"
    )


def test_a_pickled_model_goes_on_without_its_programs() -> None:
    net, optimizer = Net(), optim.SGD(0.1, 0.9)
    net.compile(lambda z, t: gc.mse_loss(z, t), optimizer)
    x, t = np.ones((4, 4), np.float32), np.ones((4, 2), np.float32)
    net.fit(x, t, epochs=2, verbose=0)
    other, its_optimizer = pickle.loads(pickle.dumps((net, optimizer)))
    np.testing.assert_array_equal(other.predict(x), net.predict(x))
    assert [v.name for _, v in other.named_variables()] == NAMES
    with pytest.raises(StateError, match="compile"):
        pickle.loads(pickle.dumps(net)).fit(x, t)
    other.compile("mse", its_optimizer)
    other.fit(x, t, verbose=0), net.fit(x, t, verbose=0)  # with the momenta that it had
    np.testing.assert_array_equal(other.predict(x), net.predict(x))


def test_a_list_of_modules_may_be_given_as_one() -> None:
    a, b = nn.Linear(2, 2), nn.Linear(2, 3)
    for made in (nn.ModuleList([a, b]), nn.ModuleList(m for m in (a, b)), nn.ModuleList(a, b), nn.Sequential([a, b])):
        assert list(made) == [a, b]
    assert len(nn.ModuleList([])) == len(nn.ModuleList()) == 0 and list(nn.ModuleList(a)) == [a]
    inner = nn.ModuleList([a, b])
    assert list(nn.ModuleList(inner)) == [inner]
    for bad in (3, [3], "ab"):
        with pytest.raises(AttributeValueError, match="holds modules"):
            nn.ModuleList(bad)


def test_a_module_cannot_be_a_part_of_itself() -> None:
    outer, inner = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Tanh())
    outer.append(inner)
    for part in (outer, inner):
        with pytest.raises(StateError, match="would make the module a part of itself.*weakref"):
            inner.child = outer if part is outer else inner
    assert outer(gc.input("x", (3, 2))).shape == (3, 2)
    outer.append(inner)  # twice is fine: shared parameters
    assert len(outer.parameters()) == 2
