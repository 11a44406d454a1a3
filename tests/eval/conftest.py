"""Fixtures of the runner's tests; `run_world` is importable from them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from run_world import Answer, write_clip, write_tiny, write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a tiny copy of every data set. Tests that change files make their own."""
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`python:FILE.py`, to be followed by `:build` or another factory of `run_world.TINY_SOURCE`."""
    return f"python:{write_tiny(tmp_path_factory.mktemp('tiny'))}"


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Spec of a tiny two-tower model in open_clip's directory layout."""
    return f"open_clip:{write_clip(tmp_path_factory.mktemp('clip') / 'two-tower')}"


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable]:
    """`mtv-eval ARGS` in this process: exit code, stdout, stderr. The log goes back to what it was afterwards."""
    from mtv.eval.cli import invoke

    root, mtv = logging.getLogger(), logging.getLogger("mtv")
    before = root.handlers[:], root.level, mtv.level
    monkeypatch.setenv("MTV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["mtv-eval"])

    def run(*argv: object) -> Answer:
        capfd.readouterr()
        words = [str(a) for a in argv]
        monkeypatch.setattr(sys, "argv", ["mtv-eval", *words])
        code = invoke(words)
        out, err = capfd.readouterr()
        return Answer(code=code, out=out, err=err)

    yield run
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    mtv.setLevel(before[2])
