"""What the installed package declares about itself and carries with it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import graphc

PACKAGE = Path(graphc.__file__).parent


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_versions_agree(project: dict) -> None:
    changelog = (Path(__file__).parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert graphc.__version__ == project["version"]
    assert f"## [{graphc.__version__}]" in changelog


def test_command_exists(project: dict) -> None:
    module, function = project["scripts"]["graphc"].split(":")
    assert module == "graphc.cli"
    from graphc import cli

    assert callable(getattr(cli, function))


def test_files_that_are_no_code_are_there() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "data/mnist_subset/README.md").is_file()
    size = sum(path.stat().st_size for path in (PACKAGE / "data/mnist_subset").iterdir())
    assert size < 2_500_000
