"""Fixtures of the runner's tests; `run_world`, `run_helpers` and `run_oracles` are importable from them.

torch is imported when a fixture needs it: the tests of the readers below do without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from run_world import write_clip, write_tiny, write_world

from mtv.encoders import load

if TYPE_CHECKING:
    from run_helpers import Answer

    from mtv.encoders.base import Encoder


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


@pytest.fixture(scope="session")
def two_tower(clip: str) -> Encoder:
    """The two-tower model, loaded."""
    return load(clip)


@pytest.fixture(scope="session")
def tiny_encoder(tiny: str) -> Encoder:
    """The dense model with text, loaded."""
    return load(f"{tiny}:build")


@pytest.fixture(scope="session")
def vit_tiny() -> Encoder:
    """A ViT-Tiny with random weights at 64 pixels."""
    return load("timm:vit_tiny_patch16_224@random?size=64")


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """`mtv-eval ARGS` in this process: exit code, stdout, stderr."""
    from run_helpers import Answer, mtv_eval

    monkeypatch.setenv("MTV_CACHE", str(tmp_path / "cache"))

    def run(*argv: object) -> Answer:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["mtv-eval", *map(str, argv)])
        code = mtv_eval(*argv)
        out, err = capfd.readouterr()
        return Answer(code=code, out=out, err=err)

    return run
