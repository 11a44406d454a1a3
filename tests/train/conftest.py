"""Shared modules are importable from the tests of this folder; `data_corpus` is a small sound corpus, read only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mtv.shards import ShardDataset

sys.path.insert(0, str(Path(__file__).parent))

from checkpoint_world import copied, save, trained_parallel
from data_world import write_corpus
from synthetic import build, tiny_recipe

from mtv.train.parallel import Parallel


@pytest.fixture(scope="session")
def data_corpus(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Four shards of different length, 32 samples, all labelled."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def trained() -> Parallel:
    """A learner after some steps; read only."""
    return trained_parallel()


@pytest.fixture(scope="module")
def saved(trained: Parallel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The step folder of `trained`; read only."""
    return save(tmp_path_factory.mktemp("run"), trained, 3)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of `saved` to break."""
    return copied(saved, tmp_path / "run")


@pytest.fixture
def fresh() -> Parallel:
    """A learner that has not stepped."""
    return build(tiny_recipe())
