"""docs/architecture.md tells the truth: its dumps are what the compiler gives, its count of kernels what it makes."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from graphc.codegen.host import host
from graphc.inspect.bench import compiled
from graphc.inspect.workloads import WORKLOADS
from graphc.ir.op import OPS

DOCS = Path(__file__).parent.parent / "docs"
ROOT = DOCS.parent / "graphc"


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "architecture.md").read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return script("dumps")


def test_ops_page_is_current() -> None:
    """Every op of the registry, and nothing else, is on the page as it is defined now."""
    text = (DOCS / "ops.md").read_text(encoding="utf-8")
    assert text == script("ops_page").page(), "docs/ops.md is out of date: run `python docs/ops_page.py`"
    assert sorted(re.findall(r"^### `(\w+)`$", text, re.MULTILINE)) == sorted(OPS)


def test_dumps_are_current(page: str, tool: ModuleType) -> None:
    shown = {match["name"]: match["text"] for match in tool.BLOCK.finditer(page)}
    found = tool.dumps(page)
    assert shown.keys() == found.keys()
    if host().lanes != 16:
        del found["source"]  # the page shows that of AVX-512
    for name, text in found.items():
        assert shown[name] == text.strip(), f"dump {name!r} is out of date: run `python docs/dumps.py`"


def test_a_stale_dump_is_refreshed(page: str, tool: ModuleType) -> None:
    stale = page.replace("kernel grad_matmul_mul_sub(", "kernel old_name(")
    assert stale != page
    assert ("kernel grad_matmul_mul_sub(" in tool.refreshed(stale)) and ("old_name" not in tool.refreshed(stale))


@pytest.mark.parametrize("name", ["mlp", "mlp_small"])
def test_kernels_are_as_many_as_counted(page: str, name: str) -> None:
    counted = re.search(rf"^\| `{name}` \|[^|]*[a-z][^|]*\| (\d+) \|", page, re.MULTILINE)
    assert counted
    program, _ = compiled(WORKLOADS[name])
    assert len(program.kernels) == int(counted[1])


def test_layers_are_those_enforced(page: str) -> None:
    rules = ast.parse(Path(__file__).with_name("test_architecture.py").read_text(encoding="utf-8"))
    assigned = [n for n in rules.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "LAYERS"]
    layers = ast.literal_eval(assigned[0].value)
    table = page[page.index("| layer |") : page.index("`codegen/` and `runtime/` do not")]
    rows = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    shown = [tuple(name.rstrip("/").removesuffix(".py") for name in re.findall(r"[\w./]+", row)) for row in rows]
    assert shown == [tuple(n for n in row if not n.startswith("__")) for row in layers]


def test_files_named_on_the_page_exist(page: str) -> None:
    named = set(re.findall(r"`((?:graphc|docs|tests)/[\w/]+(?:\.py)?/?)`", page))
    assert len(named) > 5
    for name in named:
        assert (DOCS.parent / name).exists(), name
    for name in set(re.findall(r"`((?:kernel|codegen|passes|dsl|ops|interop)/[\w/]+\.py)`", page)):
        assert (ROOT / name).exists(), name
