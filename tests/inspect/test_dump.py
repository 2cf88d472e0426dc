"""Dumps of compiled programs: complete, self-contained, the same every time; and logs that the environment asks for."""

from __future__ import annotations

import logging
from html.parser import HTMLParser
from pathlib import Path

import pytest

import graphc as gc
from graphc.errors import CompileError, GraphcWarning, InputError
from graphc.inspect.announce import folder_name
from graphc.ir.text import parse
from graphc.kernel.text import parse_kernel
from graphc.program import Program


def make(**options: object) -> Program:
    x, t = gc.input("x", ("N", 6)), gc.input("t", ("N",), "int32")
    w, b = gc.param("w", (6, 3)), gc.param("b", (3,))
    loss = gc.cross_entropy(x @ w + b, t)
    gw, gb = gc.grad(loss, [w, b])
    options = {"dims": {"N": 4}, "name": "classifier", **options}
    return gc.compile([x, t], [loss], {w: w - 0.1 * gw, b: b - 0.1 * gb}, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def program() -> Program:
    return make()


class Page(HTMLParser):
    """Checks that tags are balanced, and collects text and what the page would load."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [(key, value) for key, value in attrs if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_page_is_self_contained(program: Program, tmp_path: Path) -> None:
    path = program.dump(tmp_path / "report")
    page = Page(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "report" / "index.html"
    assert page.loads == [] and "script" not in page.tags
    text = "".join(page.words)
    for kernel in program.kernels.values():
        assert kernel.source.strip() in text and kernel.form.strip() in text
    for stage in program.stages:
        assert stage.name in text and all(rewrite.why in text for rewrite in stage.rewrites)


def test_files_can_be_read_back(program: Program, tmp_path: Path) -> None:
    program.dump(tmp_path)
    assert parse((tmp_path / "graph.txt").read_text()) == program.graph
    stages = sorted((tmp_path / "stages").glob("*.txt"))
    assert [parse(path.read_text()) for path in stages] == [stage.after for stage in program.stages]
    assert stages[0].name == "01-stability.txt"
    for name, kernel in program.kernels.items():
        form, _, schedule = (tmp_path / "kernels" / f"{name}.txt").read_text().partition("# schedule: ")
        assert parse_kernel(form) == parse_kernel(kernel.form) and schedule.strip() == kernel.schedule
        compile((tmp_path / "kernels" / f"{name}.py").read_text(), name, "exec")
    assert "arena" in (tmp_path / "memory.txt").read_text()


def test_the_same_program_gives_the_same_files(program: Program, tmp_path: Path) -> None:
    program.dump(tmp_path / "a")
    again = make()
    again.dump(tmp_path / "b")
    make(cache=False).dump(tmp_path / "c")
    first = contents(tmp_path / "a")
    assert again.from_cache and len(first) > 10
    assert first == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_machine_code_on_request(tmp_path: Path) -> None:
    x = gc.input("x", (8,))
    gc.compile([x], [gc.exp(x)]).dump(tmp_path, machine_code=True)
    (assembly,) = (tmp_path / "kernels").glob("*.s")
    assert ".text" in assembly.read_text() and "define" in assembly.with_suffix(".ll").read_text()


def test_refusals(program: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the dump of program 'classifier'"):
        program.dump(tmp_path / "file")
    with pytest.raises(CompileError, match="not compiled yet"):
        make(dims={}).dump(tmp_path)


# What can be printed


def test_graphs_and_stages_print_themselves(program: Program) -> None:
    assert parse(str(program.graph)) == program.graph
    assert repr(program.graph) == f"<graph classifier: 4 inputs, {len(program.graph.nodes)} nodes, 3 outputs>"
    stage = next(stage for stage in program.stages if stage.name == "differentiate")
    assert repr(stage).startswith("<stage differentiate: ") and "1 rewrite>" in repr(stage)
    assert stage.rewrites[0].why in str(stage) and stage.diff in str(stage)
    kernel = next(iter(program.kernels.values()))
    text = " ".join(str(kernel).split())
    for part in (kernel.form, kernel.source, kernel.schedule):
        assert text.count(" ".join(part.split())) == 1


# The environment


def test_dumps_of_every_compiled_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path))
    first, other = make(), make(dims={"N": 5})
    assert {p.name for p in tmp_path.iterdir()} == {folder_name(first), folder_name(other)}
    assert folder_name(first) != folder_name(other) and folder_name(first).startswith("classifier-")
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path / folder_name(first) / "index.html"))
    with pytest.raises(InputError, match="cannot write the dump"):
        make()


def test_logs_go_to_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    make(cache=False)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("GRAPHC_LOGS", "passes, kernels,cache")
    program = make(cache=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[graphc.cache] classifier: compiled"
    assert any("[graphc.passes] classifier: differentiate: " in line for line in lines)
    assert sum(line.startswith("[graphc.kernels] ") for line in lines) == len(program.kernels)
    assert not any(line.startswith(("[graphc.memory]", "[graphc.rewrites]")) for line in lines)
    monkeypatch.setenv("GRAPHC_LOGS", "all")
    make(cache=False)
    found = {line.split("]")[0] for line in capsys.readouterr().err.splitlines()}
    assert {"[graphc.memory", "[graphc.rewrites", "[graphc.cache"} <= found


def test_logs_of_a_program_from_the_cache(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    make()
    monkeypatch.setenv("GRAPHC_LOGS", "cache,passes")
    make()
    assert capsys.readouterr().err.splitlines() == [
        "[graphc.cache] classifier: found in the cache",
        "[graphc.passes] classifier: found in the cache, no pass ran",
    ]


def test_logs_go_to_loggers_that_are_set_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHC_LOGS", "memory")
    with caplog.at_level(logging.INFO, logger="graphc"):
        make()
    assert "classifier: found in the cache" in caplog.messages or "classifier: compiled" in caplog.messages
    assert any(message.startswith("classifier: arena ") for message in caplog.messages)
    assert capsys.readouterr().err == ""


def test_unknown_topics_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_LOGS", "passes,kernel")
    with pytest.warns(GraphcWarning, match="unknown topic 'kernel'; there are: cache, passes"):
        make()
