"""Fixtures of the feature room; `feature_world` is importable from its tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from feature_world import TinyEncoder, options_for, write_pictures

from mtv.eval.datasets.base import FileRef
from mtv.eval.features.api import FeatureProvider


@pytest.fixture
def encoder() -> TinyEncoder:
    return TinyEncoder()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, tuple[FileRef, ...]]:
    """Ten pictures."""
    return write_pictures(tmp_path / "data", 10)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def provider(encoder: TinyEncoder, cache: Path) -> Callable[..., FeatureProvider]:
    """A fresh provider, as a new process would make it."""

    def make(model: TinyEncoder | None = None, **options: Any) -> FeatureProvider:
        return FeatureProvider(model or encoder, options_for(options.pop("cache_dir", cache), **options))

    return make
