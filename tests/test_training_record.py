"""What a checkpoint says about its training: read back, absent, damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtv.errors import CheckpointError
from mtv.training_record import FILE, TrainingRecord, read_training

RECORD = TrainingRecord(
    recipe="mini",
    recipe_hash="a" * 64,
    study_hash="b" * 64,
    size="mini",
    objectives=("vl", "depth"),
    seed=3,
    samples=640,
    samples_total=1280,
    data_hash="c" * 64,
)


def test_round_trip(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"training": RECORD.to_dict(), "recipe": {"name": "mini"}}))
    assert read_training(tmp_path) == RECORD
    assert not RECORD.finished


@pytest.mark.parametrize("text", [None, "{}", '{"recipe": {"name": "mini"}}', '{"training": 3}', "[1]"])
def test_folders_of_others_have_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / FILE).write_text(text)
    assert read_training(tmp_path) is None


@pytest.mark.parametrize("text", ["{", '{"training": {"recipe": "mini"}}', '{"training": {"weight": 1}}'])
def test_damage_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=FILE):
        read_training(tmp_path)
