"""The committed study in miniature: complete, one study, and the tables of its pages are what the commands print."""

from __future__ import annotations

import re
from itertools import chain, combinations
from pathlib import Path
from statistics import mean, stdev

import pytest

from mtv.eval.cli import invoke
from mtv.leaderboards.compare import Compared, compare, select_model
from mtv.leaderboards.frame import load
from mtv.leaderboards.study import studies

ROOT = Path(__file__).parents[2] / "leaderboards" / "miniature"
ADDED = ("ssl", "ground", "depth")


def table_rows(markdown: str) -> list[list[str]]:
    lines = (line for line in markdown.splitlines() if line.startswith("| VL"))
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines]


def test_it_is_one_study_with_all_subsets_and_three_seeds_of_both_ends() -> None:
    (study,) = studies(load(ROOT / "study"))
    lattice = {frozenset({"vl", *s}) for s in chain.from_iterable(combinations(ADDED, k) for k in range(4))}
    seeds = {s: {seed for objectives, seed in study.cells if frozenset(objectives) == s} for s in lattice}
    assert all(seeds.values())
    assert seeds[frozenset({"vl"})] == seeds[frozenset({"vl", *ADDED})] == {0, 1, 2}


@pytest.mark.parametrize("order", ["ssl,ground,depth", "depth,ground,ssl"])
def test_the_page_shows_table_3_as_it_is_printed(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["table", "3", "--results", str(ROOT / "study"), "--order", order, "--format", "md"]) == 0
    printed = capsys.readouterr().out
    (head,) = (line for line in printed.splitlines() if line.startswith("| Training"))
    vqa = next(k for k, name in enumerate(head.strip("|").split("|")) if "VQA" in name)
    page = (ROOT / "lattice.md").read_text(encoding="utf-8")
    rows = table_rows(printed)
    assert len(rows) == 4
    for row in rows:
        assert "| " + " | ".join(c for k, c in enumerate(row) if k != vqa) + " |" in page


def measured_rows(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Rows of Table 3 that have a number; without the column of a task that does not exist yet."""
    assert invoke(["table", "3", "--format", "md", *words]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| VL", "| Absolute"))]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in printed if "| not run | not run |" not in line]
    return [[c for c in row if not c.startswith("not run")] for row in rows]


def test_the_trainer_page_shows_vl_and_all_four(capsys: pytest.CaptureFixture[str]) -> None:
    names = {folder.name.rpartition("-")[0] for folder in (ROOT / "study").iterdir()}
    ends = [f"mini-{tasks}-seed{seed}" for tasks in ("vl", "vl-ssl-ground-depth") for seed in range(3)]
    assert names >= {*ends, "random-0", "random-1", "random-2"}
    rows = measured_rows(["--results", str(ROOT / "study"), *(w for name in ends for w in ("-m", name))], capsys)
    assert [row[0] for row in rows] == ["VL", "VL + SSL + Ground. + Depth", "Absolute Gain Δ"]
    page = (ROOT / "trainer.md").read_text(encoding="utf-8")
    for row in rows:
        assert "| " + " | ".join(row) + " |" in page


DENSE = {"ade20k/miou": 1, "navi/avg_recall": 1, "spair/avg_recall": 1, "nyuv2/rmse": -1}
"""The dense columns, and the sign of better."""


def compared(a: str, b: str) -> dict[str, Compared]:
    """Headline to its paired comparison, B minus A."""
    records = load(ROOT / "study")
    return {row.key: row for row in compare(select_model(records, a), select_model(records, b)).rows}


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_are_far_behind_both_and_all_four_are_above_vl(seed: int) -> None:
    random, vl, full = f"random-{seed}", f"mini-vl-seed{seed}", f"mini-vl-ssl-ground-depth-seed{seed}"
    for trained in (vl, full):
        rows = compared(random, trained)
        for key, sign in {**DENSE, "coco/t2i_r1": 1}.items():
            assert sign * (rows[key].difference.delta or 0.0) > 0, (trained, key)
            assert (1.0 if rows[key].p_holm is None else rows[key].p_holm) < 0.025, (trained, key)
    rows = compared(vl, full)
    assert all(sign * (rows[key].difference.delta or 0.0) > 0 for key, sign in DENSE.items())


@pytest.mark.parametrize(("shown", "name"), [("random", "random"), ("random, shrunk", "shrunk")])
def test_the_trainer_page_shows_the_untrained_models(shown: str, name: str) -> None:
    keys = ("imagenet/top1", "coco/t2i_r1", "coco/i2t_r1", *DENSE)
    draws = [select_model(load(ROOT / "study"), f"{name}-{seed}") for seed in range(3)]
    found = {key: [m[key].value for own in draws for m in (s.record.metrics for s in own) if key in m] for key in keys}
    digits = {key: 3 if key == "nyuv2/rmse" else 1 for key in keys}
    cells = [f"{mean(v):.{digits[k]}f} (SD {stdev(v):.{digits[k]}f})" for k, v in found.items()]
    assert f"| {shown} | {' | '.join(cells)} |" in (ROOT / "trainer.md").read_text(encoding="utf-8")


def test_the_lattice_page_shows_the_shorter_runs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = measured_rows(["--results", str(ROOT / "scaling")], capsys)
    assert [row[0] for row in rows] == ["VL", "VL + SSL + Ground. + Depth", "Absolute Gain Δ"] * 2
    page = (ROOT / "lattice.md").read_text(encoding="utf-8")
    for row in rows:
        assert " | ".join(row[1:]) + " |" in page


def test_readme_quotes_the_same_numbers() -> None:
    readme = (ROOT.parents[1] / "README.md").read_text(encoding="utf-8")
    rows = {r[0]: r for r in table_rows((ROOT / "trainer.md").read_text(encoding="utf-8"))}
    for name, shown in (("VL", "VL"), ("VL + SSL + Ground. + Depth", "VL + SSL + Ground + Depth")):
        bare = [re.sub(r" \(.*\)", "", c) for c in rows[name]]
        assert f"| {shown} | " + " | ".join(bare[k] for k in (2, 4, 5, 6, 7)) + " |" in readme
