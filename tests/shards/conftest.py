"""`shard_world` is importable from the tests of this folder; `corpus` is a small corpus with both kinds of labels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from shard_world import World, write_world


@pytest.fixture
def corpus(tmp_path: Path) -> World:
    """Three indexed shards of different length in a folder of the test's own."""
    return write_world(tmp_path / "corpus", shards=(7, 1, 12))
