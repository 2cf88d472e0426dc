"""The doctor finds what is broken, and nothing where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc.inspect import doctor
from graphc.inspect.doctor import FAILURE, OK, WARNING, Finding, examine


def find(subject: str) -> Finding:
    return next(finding for finding in examine() if finding.subject == subject)


def test_sound_installation() -> None:
    findings = examine()
    assert [finding.state for finding in findings if finding.state == FAILURE] == []
    details = {finding.subject: finding.detail for finding in findings}
    assert "numba" in details["packages"] and "llvmlite" in details["packages"]
    assert "10,000 training and 2,000 test images" in details["mnist"]
    assert "kernels compiled and run" in details["self-test"]
    assert str(findings[0]).startswith("ok ")


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))
    finding = find("packages")
    assert finding.state == FAILURE and "missing: no-such-package" in finding.detail


def test_cache_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert find("cache").state == WARNING


def test_cache_that_others_may_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("GRAPHC_CACHE", str(folder))
    finding = find("cache")
    assert finding.state == WARNING and "other users" in finding.detail


def test_cache_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "file" / "cache"))
    finding = find("cache")
    assert finding.state == WARNING and str(tmp_path) in finding.detail


def test_missing_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_DATA", str(tmp_path))
    finding = find("mnist")
    assert finding.state == FAILURE and "DataError" in finding.detail and "\n" not in finding.detail


def test_wrong_results_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.inspect.oracle._deviation", lambda got, expected: 0.5)
    finding = find("self-test")
    assert finding.state == FAILURE and "wrongly" in finding.detail
    assert find("python").state == OK
