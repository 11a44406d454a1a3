"""Fixtures shared by all tests."""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from mtv.hashing import sha256_file, sha256_lines

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of small real data sets (`MTV_DATA` or ../shared/data); skips where it is absent."""
    candidates = [Path(os.environ["MTV_DATA"])] if "MTV_DATA" in os.environ else [ROOT.parent / "shared" / "data"]
    for path in candidates:
        if path.is_dir():
            return path.resolve()
    pytest.skip(f"real data not found at {candidates[0]}; set MTV_DATA to run this test")


@pytest.fixture(scope="session")
def mini_world() -> Path:
    """A whole miniature world (scale tiny, 48 px, seed 0): every benchmark and pretraining shards. Read only.

    It is made once per version of the generator's code and kept in the temporary folder between sessions.
    """
    sources = sorted(p for room in ("miniworld", "shards") for p in (ROOT / "mtv" / room).rglob("*.py"))
    key = sha256_lines(f"{p.relative_to(ROOT)} {sha256_file(p)}" for p in sources)[:16]
    kept = Path(tempfile.gettempdir()) / f"mtv-mini-world-{getpass.getuser()}-{key}"
    if not kept.is_dir():
        from mtv.miniworld.make import make_world
        from mtv.miniworld.spec import WorldSpec

        # made beside its place and renamed whole, so that parallel sessions never see a part
        staged = kept.with_name(f"{kept.name}.{os.getpid()}")
        make_world(staged, WorldSpec(size=48), scale="tiny")
        try:
            staged.rename(kept)
        except OSError:
            shutil.rmtree(staged)
        for old in kept.parent.glob(f"mtv-mini-world-{getpass.getuser()}-*"):
            if time.time() - old.stat().st_mtime > 86_400:
                shutil.rmtree(old, ignore_errors=True)
    return kept


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may reach a hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _usual_level_of_our_log() -> None:
    """Command lines under test, also those of fixtures, set the level of our log; every test finds it unset."""
    logging.getLogger("mtv").setLevel(logging.NOTSET)
