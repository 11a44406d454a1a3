"""Relative depth when things go wrong: refusals that keep scores, interruptions, damaged files, little memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dense_files import save
from rel_helpers import fail, score, value
from rel_world import write_models, write_nyu
from run_helpers import make_job, make_runner, measure, same_outcome, stored

from mtv.encoders import load
from mtv.errors import DataError
from mtv.eval import rel_predictions


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`python:FILE`, to be followed by `:Reads` or another class."""
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six test frames of 64 x 64. Read only."""
    return write_nyu(tmp_path_factory.mktemp("nyu"))


def forwarded(log: Path) -> int:
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def test_inverted_predictions_are_refused_and_their_scores_kept(
    models: str, nyu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R5: the scores stay in the cache, so that a second look costs no forward pass."""
    encoder = load(f"{models}:Negated")
    monkeypatch.setenv("REL_LOG", str(tmp_path / "log"))
    for _ in range(2):
        error = fail(encoder, nyu, tmp_path, cache=tmp_path / "cache")
        assert "the fitted scale is not positive in 6 of 6 images" in str(error)
        assert forwarded(tmp_path / "log") == 6
    record, table = score(encoder, nyu, tmp_path, force=True)
    assert (value(record, "positive_scale"), record.details["n_inverted"]) == (0, 6)
    assert record.diagnosis == ["The fitted scale is not positive in 6 of 6 pictures."]
    assert bool((table["scale"] < 0).all())


def test_an_interrupted_run_goes_on_where_it_was(
    models: str, nyu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(f"{models}:Rough")
    job = make_job("rel_nyu", force=True)
    measure(encoder, job, nyu, tmp_path / "whole")
    monkeypatch.setenv("REL_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(rel_predictions, "auto_batch_size", lambda device, size: 2)
    taken = iter(range(4))

    class Stopped(KeyboardInterrupt):
        pass

    def tick(stage: str, done: int, total: int, detail: str = "") -> None:
        if next(taken, None) is None:
            raise Stopped

    runner = make_runner(nyu, tmp_path / "parts", cache=tmp_path / "cache")
    runner.open([job])
    with monkeypatch.context() as patch:
        patch.setattr("mtv.console.Reporter.tick", lambda self, *args: tick(*args))
        with pytest.raises(Stopped):
            runner.run_model(encoder, [job])
    (state,) = (tmp_path / "cache" / "work").rglob("*.json")
    assert len(json.loads(state.read_text())) == 5
    before = forwarded(tmp_path / "log")
    measure(encoder, job, nyu, tmp_path / "parts", cache=tmp_path / "cache")
    assert forwarded(tmp_path / "log") == before + 1
    assert not state.exists()
    (whole,), (parts,) = stored(tmp_path / "whole").values(), stored(tmp_path / "parts").values()
    same_outcome(whole, parts, tolerance=0)


def test_damaged_state_is_scored_again(
    models: str, nyu: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load(f"{models}:Negated")
    fail(encoder, nyu, tmp_path, cache=tmp_path)
    (state,) = (tmp_path / "work").rglob("*.json")
    for text in ("{", '{"room_0/rgb_00000": {}}'):
        state.write_text(text)
        with caplog.at_level("WARNING"):
            assert "6 of 6" in str(fail(encoder, nyu, tmp_path, cache=tmp_path))
    assert caplog.text.count("rel_depth.json cannot be read") == 2


def test_batches_and_memory_change_nothing(
    models: str, nyu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    results = []
    for batch in (1, 4):
        monkeypatch.setattr(rel_predictions, "auto_batch_size", lambda device, size, b=batch: b)
        measure(load(f"{models}:Rough"), make_job("rel_nyu", force=True), nyu, tmp_path / f"b{batch}")
        results.append(next(iter(stored(tmp_path / f"b{batch}").values())))
    same_outcome(*results)
    hungry = load(f"{models}:Hungry")
    monkeypatch.setenv("REL_LOG", str(tmp_path / "log"))
    with caplog.at_level("WARNING"):
        record, _ = score(hungry, nyu, tmp_path)
    assert "out of memory with 4 pictures of rel_nyu; trying 2" in caplog.text
    assert forwarded(tmp_path / "log") == 4 + 2 + 2 + 2
    assert value(record, "absrel_depth") < 1.5


def test_pictures_without_depth_are_left_out(models: str, tmp_path: Path) -> None:
    data = write_nyu(tmp_path / "data", 3)
    files = sorted(data.rglob("sync_depth_*.png"))
    save(files[1], np.zeros((64, 64), np.uint16))
    encoder = load(f"{models}:Reads")
    record, table = score(encoder, data, tmp_path)
    assert len(table["sample_id"]) == 2
    assert (record.details["n_scored"], record.details["n_empty"]) == (2, 1)
    assert record.diagnosis == ["1 of 3 pictures have no valid pixel and are left out."]
    error = fail(encoder, data, tmp_path, min_depth=9.5, max_depth=9.6)
    assert isinstance(error, DataError)
    assert "no picture has a valid pixel" in str(error)


def test_a_broken_picture_stops_with_its_name(models: str, tmp_path: Path) -> None:
    data = write_nyu(tmp_path / "data", 20)
    broken = sorted(data.rglob("rgb_*.png"))[9]  # not among the 16 that the data check decodes
    broken.write_bytes(broken.read_bytes()[:200])
    error = fail(load(f"{models}:Reads"), data, tmp_path, cache=tmp_path / "cache")
    assert isinstance(error, DataError)
    assert broken.name in str(error)
    (state,) = (tmp_path / "cache" / "work").rglob("*.json")
    assert len(json.loads(state.read_text())) <= 9
