"""Stores of results and their pages, made once; tests that change a store get a copy of their own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from mtv.leaderboards.frame import load
from mtv.leaderboards.report.build import build_report

sys.path.insert(0, str(Path(__file__).parent))

from report_stores import make_store, make_study


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`report_stores.make_store`; read only."""
    root = tmp_path_factory.mktemp("made") / "results"
    make_store(root)
    return root


@pytest.fixture(scope="session")
def made_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`report_stores.make_study`; read only."""
    root = tmp_path_factory.mktemp("study") / "results"
    make_study(root)
    return root


@pytest.fixture
def store(made_store: Path, tmp_path: Path) -> Path:
    """A copy of `made_store`."""
    return Path(shutil.copytree(made_store, tmp_path / "results"))


@pytest.fixture
def study_store(made_study: Path, tmp_path: Path) -> Path:
    """A copy of `made_study`."""
    return Path(shutil.copytree(made_study, tmp_path / "study"))


@pytest.fixture(scope="session")
def store_page(made_store: Path) -> str:
    """The report of `made_store`."""
    return build_report(load(made_store))[0]


@pytest.fixture(scope="session")
def study_page(made_study: Path) -> str:
    """The report of `made_study`."""
    return build_report(load(made_study))[0]
