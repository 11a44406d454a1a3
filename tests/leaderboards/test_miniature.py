"""The committed study in miniature: complete, one study, and its printed tables are what the commands print."""

from __future__ import annotations

import re
from itertools import chain, combinations
from pathlib import Path

import pytest

from mtv.eval.cli import invoke
from mtv.leaderboards.frame import load
from mtv.leaderboards.study import studies

ROOT = Path(__file__).parents[2] / "leaderboards" / "miniature"
ADDED = ("ssl", "ground", "depth")


def table_rows(markdown: str) -> list[list[str]]:
    lines = (line for line in markdown.splitlines() if line.startswith("| VL"))
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines]


def test_it_is_one_study_with_all_subsets_and_three_seeds_of_both_ends() -> None:
    (study,) = studies(load(ROOT / "lattice"))
    lattice = {frozenset({"vl", *s}) for s in chain.from_iterable(combinations(ADDED, k) for k in range(4))}
    seeds = {s: {seed for objectives, seed in study.cells if frozenset(objectives) == s} for s in lattice}
    assert all(seeds.values())
    assert seeds[frozenset({"vl"})] == seeds[frozenset({"vl", *ADDED})] == {0, 1, 2}


@pytest.mark.parametrize("order", ["ssl,ground,depth", "depth,ground,ssl"])
def test_the_page_shows_table_3_as_it_is_printed(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["table", "3", "--results", str(ROOT / "lattice"), "--order", order, "--format", "md"]) == 0
    printed = capsys.readouterr().out
    (head,) = (line for line in printed.splitlines() if line.startswith("| Training"))
    vqa = next(k for k, name in enumerate(head.strip("|").split("|")) if "VQA" in name)
    page = (ROOT / "lattice.md").read_text(encoding="utf-8")
    rows = table_rows(printed)
    assert len(rows) == 4
    for row in rows:
        assert "| " + " | ".join(c for k, c in enumerate(row) if k != vqa) + " |" in page


@pytest.mark.parametrize(("folder", "page_name"), [("scaling", "lattice.md"), ("trainer", "trainer.md")])
def test_the_pages_show_the_runs_of_vl_and_all_four(
    folder: str, page_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["table", "3", "--results", str(ROOT / folder), "--format", "md"]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| VL", "| Absolute"))]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in printed if "| not run | not run |" not in line]
    assert [r[0] for r in rows] == ["VL", "VL + SSL + Ground. + Depth", "Absolute Gain Δ"]
    page = (ROOT / page_name).read_text(encoding="utf-8")
    for row in rows:
        shown = [c for c in row if not c.startswith("not run")]
        assert "| " + " | ".join(shown) + " |" in page


def test_readme_quotes_the_same_numbers() -> None:
    readme = (ROOT.parents[1] / "README.md").read_text(encoding="utf-8")
    rows = {r[0]: r for r in table_rows((ROOT / "trainer.md").read_text(encoding="utf-8"))}
    for name, shown in (("VL", "VL"), ("VL + SSL + Ground. + Depth", "VL + SSL + Ground + Depth")):
        bare = [re.sub(r" \(.*\)", "", c) for c in rows[name]]
        assert f"| {shown} | " + " | ".join(bare[k] for k in (2, 4, 5, 6, 7)) + " |" in readme
