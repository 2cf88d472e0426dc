"""The code on README.md, docs/quickstart.md and docs/control.md runs, block after block, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/control.md"])
def test_code_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = list(CODE.finditer(text))
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "reader"}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        code = compile("\n" * line + block[1], str(ROOT / page), "exec")  # tracebacks show the page's line
        exec(code, namespace)
    assert capsys.readouterr().out


def test_commands_that_the_readme_promises_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "    python -m venv .venv && .venv/bin/pip install . && .venv/bin/graphc train mlp\n" in text
    assert '    python -m venv .venv && .venv/bin/pip install ".[test]" && .venv/bin/pytest\n' in text
    for file in re.findall(r"\]\((\w[\w/.]+)\)", text):
        assert (ROOT / file).exists(), file
