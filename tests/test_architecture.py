"""The layers of graphc, as rules over the imports of every file; `docs/architecture.md` explains them.

The rules are functions of a package folder, so that they are tested too, on small packages that break them.
"""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import graphc

PACKAGE = Path(graphc.__file__).parent

# A file imports from its own row and the rows above it only. Files and folders by name, from the bottom layer up.
LAYERS = (
    ("errors",),
    ("ir",),
    ("kernel",),
    ("ops",),
    ("autodiff",),
    ("interpret",),
    ("dsl",),
    ("passes",),
    ("codegen",),
    ("runtime",),
    ("tuning", "options", "fingerprint"),
    ("program",),
    ("nn", "optim", "data", "train", "models"),
    ("inspect",),
    ("interop",),
    ("cli", "__main__", "__init__"),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}

# A file that stands in another row than its folder.
PLACED = {
    "interop/safetensors.py": "data",  # a file format that needs errors alone; `Module.save` and `load` use it
    # What `Program.dump`, GRAPHC_LOGS and GRAPHC_DUMP need: it reads compiled programs through a protocol.
    "inspect/environment.py": "ir",
    "inspect/report.py": "codegen",
    "inspect/page.py": "codegen",
    "inspect/dump.py": "codegen",
    "inspect/announce.py": "codegen",
    "autodiff/check.py": "interpret",  # compares gradients with differences of interpreted values
}

# (importer, imported): forbidden though the table alone would allow it.
SEPARATE = {
    ("runtime", "codegen"): "a cached program runs with the runtime alone",
    ("interop", "inspect"): "inspect is read by nothing but the command line",
}

# Imports inside functions: file -> imported module -> why it cannot stand at the top of the file.
LATE_IMPORTS: dict[str, dict[str, str]] = {
    "codegen/machine.py": {"graphc.codegen.numba_front": "loads Numba, which generated kernels do without"},
    "codegen/cuda/compile.py": {"numba": "an extra brings numba.cuda, and source is written without it"},
    "codegen/cuda/simulate.py": {"numba": "likewise"},
    "codegen/numba_front.py": {"numba.cpython": "registers Numba's lowering, which only compiling needs"},
    "ops/scalar.py": {"sympy": "a program from the cache needs no expressions"},
    "ops/activations.py": {"sympy": "likewise"},
    "ops/scalar_function.py": {"sympy": "likewise"},
    "ops/stability.py": {"sympy": "a program from the cache needs no expressions", "mpmath": "comes with SymPy"},
    "dsl/scalar_function.py": {"sympy": "only who defines a function of his own needs SymPy"},
    "dsl/transforms.py": {"graphc.autodiff.check": "declaring needs no autodiff"},
    "program.py": {
        "graphc.codegen.build": "the compiler behind a cache hit",
        "graphc.codegen.memory": "the compiler behind a cache hit",
        "graphc.codegen.machine": "only to show LLVM and machine code",
        "graphc.tuning": "compiles what it measures",
        "graphc.inspect.dump": "loads the compiler",
        "graphc.inspect.announce": "loads the compiler; only if the environment asks for logs or dumps",
        "graphc.codegen.host": "reads the CPU's features through llvmlite, for the cache key",
    },
    "cli.py": {
        "graphc.models": "`graphc --help` needs nothing of it",
        "graphc.inspect": "reads the compiler, which training with a cached program never loads",
    },
    "inspect/bench.py": {
        "graphc.inspect.oracle": "loads gradients and SymPy; the first call is timed before that",
        "graphc.inspect.peak": "loads LLVM; likewise",
    },
    "inspect/circuit_drawing.py": {"pygraphviz": "optional; texts of circuits do without"},
    "train/progress.py": {"rich.progress": "only a fit on a terminal draws a bar"},
}

# What a program that the cache holds must run without, and the layers such a program is written with.
COLD = ("numba", "sympy", "graphc.autodiff", "graphc.passes", "graphc.codegen")
WARM = ("dsl", "runtime", "program", "nn", "optim", "data", "train", "models", "cli", "__main__", "__init__")

FORBIDDEN_NAMES = {"util", "utils", "misc", "common", "helper", "helpers"}
MAX_LINES = 500
MAX_IMPORT_SECONDS = 0.5


@dataclass(frozen=True)
class Import:
    """One imported module: `file` relative to the package; `target` likewise if it is in the package, else None."""

    file: str
    line: int
    module: str
    target: str | None
    late: bool
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"

    def is_of(self, module: str) -> bool:
        return self.module == module or self.module.startswith(f"{module}.")


# Reading the imports


def files_of(package: Path) -> list[str]:
    return sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))


def imports_of(package: Path) -> list[Import]:
    """Every import statement in every file, wherever it stands in the file."""
    return [found for file in files_of(package) for found in file_imports(package, file)]


def file_imports(package: Path, file: str) -> Iterator[Import]:
    tree = ast.parse((package / file).read_text(encoding="utf-8"), filename=file)
    pending: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while pending:
        node, late, typing_only = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module in imported_modules(node, package, file):
                yield Import(file, node.lineno, module, target_file(module, package), late, typing_only)
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body
            pending.append((child, late, typing_only or guarded))


def imported_modules(node: ast.Import | ast.ImportFrom, package: Path, file: str) -> Iterator[str]:
    """The modules that an import statement names: `from a import b` is `a.b` if that is a module of the package."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        folders = [package.name, *Path(file).parent.parts]
        base = ".".join(folders[: len(folders) - node.level + 1] + ([node.module] if node.module else []))
    for alias in node.names:
        submodule = f"{base}.{alias.name}"
        yield submodule if target_file(submodule, package) else base


def target_file(module: str, package: Path) -> str | None:
    """The file of `module` relative to the package, or None if there is none in the package."""
    name, *rest = module.split(".")
    if name != package.name:
        return None
    for candidate in ("/".join([*rest, "__init__.py"]), "/".join(rest) + ".py"):
        if (package / candidate).is_file():
            return candidate
    return None


def layer_of(file: str) -> str:
    return PLACED.get(file, file.split("/")[0].removesuffix(".py"))


# The rules; each gives the violations as text


def unplaced_files(package: Path) -> list[str]:
    return [f"{file} belongs to no layer: add it to LAYERS" for file in files_of(package) if layer_of(file) not in RANK]


def layer_violations(package: Path) -> list[str]:
    found = []
    for item in imports_of(package):
        importer, imported = layer_of(item.file), layer_of(item.target or "")
        if item.target is None or importer not in RANK or imported not in RANK:
            continue
        if RANK[imported] > RANK[importer]:
            found.append(f"{item}: {imported} is a layer above {importer}")
        elif (importer, imported) in SEPARATE:
            found.append(f"{item}: {SEPARATE[importer, imported]}")
    return found


def import_cycle(package: Path) -> list[str]:
    """A circle of files that import each other, also inside functions; imports for types alone run nothing."""
    edges: dict[str, set[str]] = {}
    for item in imports_of(package):
        if item.target is not None and not item.typing_only:
            edges.setdefault(item.file, set()).add(item.target)
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return [" is imported by ".join(error.args[1])]
    return []


def late_imports(package: Path, allowed: dict[str, dict[str, str]]) -> list[str]:
    """Imports inside functions that are not `allowed`, and entries of `allowed` that no import needs any more."""
    late = [item for item in imports_of(package) if item.late]
    found = [
        f"{item} inside a function: move it to the top of the file, or give the reason in LATE_IMPORTS"
        for item in late
        if not any(item.is_of(module) for module in allowed.get(item.file, {}))
    ]
    unused = [
        f"LATE_IMPORTS[{file!r}][{module!r}] allows an import that is not there"
        for file, modules in allowed.items()
        for module in modules
        if not any(item.file == file and item.is_of(module) for item in late)
    ]
    return found + unused


def imports_by_name(package: Path) -> list[str]:
    """Calls that import a module given as text, which no other rule could see; the root's lazy attributes need them."""
    found = []
    for file in files_of(package):
        for node in ast.walk(ast.parse((package / file).read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
                "import_module",
                "__import__",
            )
            if is_call and file != "__init__.py":
                found.append(f"{file}:{node.lineno} imports a module by name")
    return found


def cold_imports(package: Path) -> list[str]:
    """Chains of imports at the top of files that lead from a WARM layer to a COLD module."""
    edges: dict[str, list[Import]] = {}
    for item in imports_of(package):
        if not item.late and not item.typing_only:
            edges.setdefault(item.file, []).append(item)
    found = []
    for start in files_of(package):
        if layer_of(start) in WARM and (chain := chain_to_cold(package, start, edges)):
            found.append(", ".join(map(str, chain)))
    return found


def chain_to_cold(package: Path, start: str, edges: dict[str, list[Import]]) -> list[Import]:
    """A shortest chain of imports from the file `start` to a COLD module; empty if there is none."""
    chains: dict[str, list[Import]] = {start: []}
    for file in (queue := [start]):
        for item in edges.get(file, []):
            chain = [*chains[file], item]
            if any(item.is_of(module) for module in COLD):
                return chain
            for executed in executed_files(package, item.target):
                if executed not in chains:
                    chains[executed] = chain
                    queue.append(executed)
    return []


def executed_files(package: Path, target: str | None) -> list[str]:
    """The files that importing `target` runs: itself and the `__init__.py` of each folder around it but the root."""
    if target is None:
        return []
    folders = [parent.as_posix() for parent in Path(target).parents if parent.name]
    return [target, *(init for folder in folders if (package / (init := f"{folder}/__init__.py")).is_file())]


def size_and_name_violations(package: Path) -> list[str]:
    found = []
    for file in files_of(package):
        lines = len((package / file).read_text(encoding="utf-8").splitlines())
        if lines >= MAX_LINES:
            found.append(f"{file} has {lines} lines; split it below {MAX_LINES} where its subject divides")
        parts = {part.removesuffix(".py").strip("_") for part in file.split("/")}
        if parts & FORBIDDEN_NAMES:
            found.append(f"{file}: name it after what lives there")
    return found


# graphc obeys them


@pytest.mark.parametrize(
    "rule",
    [
        unplaced_files,
        layer_violations,
        import_cycle,
        imports_by_name,
        cold_imports,
        size_and_name_violations,
    ],
)
def test_rule(rule) -> None:
    violations = rule(PACKAGE)
    assert not violations, "\n".join(["", *violations])


def test_imports_stand_at_the_top() -> None:
    violations = late_imports(PACKAGE, LATE_IMPORTS)
    assert not violations, "\n".join(["", *violations])


def test_every_file_was_read() -> None:
    """The rules hold trivially for files that are not found."""
    assert {"errors.py", "ir/types.py", "data/idx.py"} <= set(files_of(PACKAGE))
    assert any(item.file == "data/idx.py" and item.target == "errors.py" for item in imports_of(PACKAGE))


# Starting up


def run_python(code: str, tmp_path: Path) -> str:
    """What a fresh interpreter prints, importing the graphc under test."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    ).stdout


@pytest.mark.parametrize("module", ["graphc", "graphc.cli"])
def test_import_is_light(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = run_python(code, tmp_path).split()
    assert "graphc" in loaded
    assert not {"numba", "llvmlite", "sympy", "torch"} & set(loaded)


def test_import_is_quick(tmp_path: Path) -> None:
    code = "import time; start = time.perf_counter(); import graphc; print(time.perf_counter() - start)"
    # The least of three: other processes can only make it slower.
    assert min(float(run_python(code, tmp_path)) for _ in range(3)) < MAX_IMPORT_SECONDS


# The rules see what breaks them


@pytest.fixture
def write(tmp_path: Path):
    """Writes a package named graphc from `{file: source}` and gives its folder."""

    def write_package(**sources: str) -> Path:
        package = tmp_path / "graphc"
        for name, source in sources.items():
            path = package / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        for folder in {path.parent for path in package.rglob("*.py")} | {package}:
            (folder / "__init__.py").touch()
        return package

    return write_package


LOWER_IMPORTS_UPPER = [
    "import graphc.passes.cse",
    "from graphc.passes import cse",
    "from graphc.passes.cse import run",
    "from ..passes import cse",
    "from ..passes.cse import run as other",
    "def f():\n    from graphc.passes import cse",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from graphc.passes.cse import run",
    "try:\n    import graphc.passes.cse as cse\nexcept ImportError:\n    cse = None",
]


@pytest.mark.parametrize("source", LOWER_IMPORTS_UPPER)
def test_layers_are_seen(write, source: str) -> None:
    package = write(ir__types=source, passes__cse="from graphc.ir import types")
    assert len(layer_violations(package)) == 1
    assert layer_violations(package)[0].startswith("ir/types.py:")
    assert layer_violations(write(ir__types="")) == []


def test_separate_layers_are_seen(write) -> None:
    package = write(codegen__cpu="from graphc.runtime import driver", runtime__driver="import graphc.codegen.cpu")
    assert len(layer_violations(package)) == 2


def test_importing_the_root_is_seen(write) -> None:
    assert "__init__ is a layer above nn" in layer_violations(write(nn__linear="import graphc as gc"))[0]


def test_files_without_a_layer_are_seen(write) -> None:
    assert unplaced_files(write(drawer__thing="", errors="")) == [
        "drawer/__init__.py belongs to no layer: add it to LAYERS",
        "drawer/thing.py belongs to no layer: add it to LAYERS",
    ]


def test_cycles_are_seen(write) -> None:
    package = write(ir__a="from graphc.ir import b", ir__b="def f():\n    import graphc.ir.c", ir__c="from .a import x")
    assert len(import_cycle(package)) == 1
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from graphc.ir.a import x"
    assert import_cycle(write(ir__c=typed)) == []
    assert len(import_cycle(write(ir__c=typed + "\nelse:\n    from graphc.ir.a import x"))) == 1


def test_late_imports_are_seen(write) -> None:
    package = write(program="def f():\n    import numba.core\n    class A:\n        import json")
    assert len(late_imports(package, {})) == 2
    assert late_imports(package, {"program.py": {"numba": "slow", "json": "no reason"}}) == []
    assert "allows an import that is not there" in late_imports(write(program=""), {"program.py": {"numba": "slow"}})[0]


def test_imports_by_name_are_seen(write) -> None:
    package = write(program="import importlib\nimportlib.import_module('numba')", cli="__import__('sympy')")
    assert len(imports_by_name(package)) == 2


@pytest.mark.parametrize("cold", ["import sympy", "from numba.extending import intrinsic", "import graphc.passes.cse"])
def test_cold_imports_are_seen(write, cold: str) -> None:
    package = write(nn__linear="from graphc.ops import scalar", ops__scalar="", ops__erf=cold, passes__cse="")
    assert cold_imports(package) == []
    # Importing `graphc.ops.scalar` runs `graphc/ops/__init__.py` first.
    (package / "ops/__init__.py").write_text("from graphc.ops.erf import thing")
    (chain,) = cold_imports(package)
    assert chain.startswith("nn/linear.py:1 imports graphc.ops.scalar, ops/__init__.py:1 imports graphc.ops.erf, ")


def test_sizes_and_names_are_seen(write) -> None:
    package = write(ir__utils="", ops___helpers="", ir__long="\n" * 500, ir__just="\n" * 499)
    assert len(size_and_name_violations(package)) == 3
