"""`mtv-train data`: index, check, stats; and the options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from data_world import Sample, write_corpus

from mtv.errors import DataError, UsageError
from mtv.shards import ShardDataset, read_dataset
from mtv.train.commands_data import data
from mtv.train.data.options import DataOptions, ViewOptions


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(a) for a in arguments], standalone_mode=False)


def test_index_makes_a_corpus_readable(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus").root
    before = read_dataset(root)
    (root / "dataset.json").unlink()
    result = run("index", root)
    assert result.exception is None
    assert "32 samples in 4 shards" in result.stdout
    assert "depth-map-v1: 32 labelled (100.0%)" in result.stdout
    assert read_dataset(root) == before


def test_check_finds_what_the_trainer_would_replace(tmp_path: Path) -> None:
    def change(n: int, s: Sample) -> None:
        if n == 3:
            s.image = s.image[:-200]
        if n == 20:
            s.captions = []

    root = write_corpus(tmp_path, change=change).root
    assert run("check", root).return_value == 0
    result = run("check", root, "--full", "--json")
    assert result.return_value == 3
    found = json.loads(result.stdout)
    assert not found["ok"]
    assert [p["key"] for p in found["problems"]] == ["s00003", "s00020"]
    text = run("check", root, "--full").stdout
    assert "2 problems" in text
    assert "00002.tar: key 's00020': there is no caption" in text


def test_check_finds_changed_files(tmp_path: Path) -> None:
    root = write_corpus(tmp_path).root
    tar = root / "labels" / "depth-map-v1" / "00002.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    result = run("check", root)
    assert result.return_value == 3
    assert "00002.tar" in result.stdout
    with pytest.raises(DataError, match="no such directory"):
        raise run("check", tmp_path / "absent").exception or AssertionError


def test_stats_count_what_is_there(data_corpus: ShardDataset) -> None:
    found = json.loads(run("stats", data_corpus.root, "--json").stdout)
    samples = [data_corpus.sample(i) for i in range(len(data_corpus))]
    assert found["samples"] == found["read"] == 32
    assert found["labels"] == {"depth-map-v1": 32, "regions-map-v1": 32}
    assert found["captions"] == sum(len(s.captions) for s in samples) / 32
    assert found["short_side"][0] == min(min(s.w, s.h) for s in samples)
    assert found["regions"] == sum(len(s.regions or ()) for s in samples) / 32
    assert found["top_names"]["mug"] == 32
    assert found["with_depth"] == 1
    text = run("stats", data_corpus.root, "--limit", 4, "--labels", "depth-map-v1").stdout
    assert "with regions       0" in text
    with pytest.raises(DataError, match="no indexed corpus"):
        raise run("stats", data_corpus.root / "images").exception or AssertionError


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (DataOptions, {"canvas": 0}),
        (DataOptions, {"limit": 0}),
        (DataOptions, {"workers": -1}),
        (DataOptions, {"augment": "gpu"}),
        (DataOptions, {"caption": "last"}),
        (ViewOptions, {"global_scale": (0.9, 1.1)}),
        (ViewOptions, {"local_scale": (0.3, 0.1)}),
        (ViewOptions, {"ratio": (0.0, 1.0)}),
        (ViewOptions, {"mask_ratio": 1.5}),
        (ViewOptions, {"mask_kind": "block"}),
        (ViewOptions, {"local_color": (0.4, 0.4, 0.2, 0.6)}),
        (ViewOptions, {"regions": 0}),
        (ViewOptions, {"min_side_px": -1.0}),
        (ViewOptions, {"region_template": "a photo"}),
    ],
)
def test_wrong_options_name_the_field(make: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{make.__name__}.{next(iter(wrong))} is "):
        make(**wrong)


def test_recipes_and_help_need_no_torch() -> None:
    modules = "mtv.train.commands_data, mtv.train.data.options, mtv.train.data.batch"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
