"""`data_world` is importable from the tests of this folder; `data_corpus` is a small sound corpus, read only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mtv.shards import ShardDataset

sys.path.insert(0, str(Path(__file__).parent))

from data_world import write_corpus


@pytest.fixture(scope="session")
def data_corpus(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Four shards of different length, 32 samples, all labelled."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))
