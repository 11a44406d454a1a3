"""Tables 3 and 4 of the paper from stores of made-up studies, whose every number is known beforehand."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from paper_store import LATTICE, ORDER, PATH, N, additive, hits, lattice, training, write, write_failure

from mtv.errors import UsageError
from mtv.leaderboards.frame import load
from mtv.leaderboards.grid import Cell, Table
from mtv.leaderboards.paper.cells import find, paper_value
from mtv.leaderboards.paper_tables import table3, table4
from mtv.leaderboards.paper_tables.runs import parse_scale, scale_of

VQA = {"vqa": "task not available"}
PAPER_10M = 48_828 * 4096
"""Samples of `mtv_b16_10m`: whole batches of 200 million."""


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole miniature study; read only."""
    return lattice(tmp_path_factory.mktemp("paper") / "mini", additive)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that repeats a run of the paper; read only."""
    return lattice(tmp_path_factory.mktemp("paper") / "large", additive, recipe="mtv_l16_50m", samples=122_070 * 4096)


def names(table: Table) -> list[str]:
    return [r.name for r in table.rows]


def cell(table: Table, row: str | int, key: str) -> Cell:
    """The cell of the first row of that name, or of that place."""
    place = row if isinstance(row, int) else names(table).index(row)
    return table.rows[place].cells[[c.key for c in table.columns].index(key)]


def near_paper(objectives: tuple[str, ...], key: str, seed: int) -> float:
    printed = paper_value(key, size="B/16", data="10M", objectives=objectives)
    base = printed.value if printed else 40.0
    return base + (0.004 if key == "nyuv2/rmse" else 1.5) + 0 * seed


def notes(table: Table) -> str:
    return "\n".join(t for _, t in table.notes)


# Table 3


def test_rows_and_columns_are_the_papers(mini: Path) -> None:
    table = table3.build(load(mini), unavailable=VQA)
    assert names(table) == [
        "mini, 32,000 samples",
        "VL",
        "VL + SSL",
        "VL + SSL + Ground.",
        "VL + SSL + Ground. + Depth",
        "Absolute Gain Δ",
    ]
    assert [c.title for c in table.columns] == [
        "IN-1k Acc. [%]",
        "COCO T→I [%]",
        "COCO I→T [%]",
        "VQA Score [%]",
        "ADE20k mIoU [%]",
        "NAVI Recall [%]",
        "SPair Recall [%]",
        "NYUv2 RMSE [m] ↓",
    ]


def test_values_increments_and_gain_are_those_of_the_scores(mini: Path) -> None:
    table = table3.build(load(mini), unavailable=VQA)
    for key in ("imagenet/top1", "coco/t2i_r1", "spair/avg_recall"):
        assert [round(cell(table, k, key).value or 0, 6) for k in (1, 2, 3, 4)] == [30.0, 38.0, 42.0, 44.0]
        assert [cell(table, k, key).label for k in (1, 2, 3, 4)] == ["", "+8.0", "+4.0", "+2.0"]
        assert cell(table, 5, key).value == pytest.approx(14.0)
    assert cell(table, "VL + SSL", "nyuv2/rmse").label == "−0.080"
    assert cell(table, "Absolute Gain Δ", "nyuv2/rmse").value == pytest.approx(
        float(np.mean(hits(0.46, "nyuv2/rmse", 0)) - np.mean(hits(0.6, "nyuv2/rmse", 0)))
    )
    assert {cell(table, k, "vqa/score").text for k in range(1, 6)} == {"not run: task not available"}


def test_the_interval_of_the_gain_is_paired(mini: Path) -> None:
    """Against the normal approximation for differences of the same samples; an unpaired one would be wider."""
    gain = cell(table3.build(load(mini)), "Absolute Gain Δ", "imagenet/top1")
    a, b = (hits(v, "imagenet/top1", 0) for v in (30.0, 44.0))
    paired = 1.96 * 100 * np.std(b - a) / np.sqrt(N)
    unpaired = 1.96 * 100 * np.sqrt((np.var(a) + np.var(b)) / N)
    assert gain.ci95 is not None
    assert (gain.ci95[1] - gain.ci95[0]) / 2 == pytest.approx(paired, rel=0.1)
    assert paired < 0.7 * unpaired


def test_other_orders_use_other_runs(mini: Path) -> None:
    table = table3.build(load(mini), order=("depth", "ssl", "ground"))
    assert names(table)[1:5] == ["VL", "VL + Depth", "VL + Depth + SSL", "VL + Depth + SSL + Ground."]
    assert [cell(table, k, "imagenet/top1").label for k in (2, 3, 4)] == ["+2.0", "+8.0", "+4.0"]
    assert cell(table, "Absolute Gain Δ", "imagenet/top1").value == pytest.approx(14.0)
    assert table3.parse_order(" depth, ssl,ground") == ("depth", "ssl", "ground")
    for wrong in ("ssl,depth", "vl,ssl,ground,depth", "ssl,ssl,depth", ""):
        with pytest.raises(UsageError, match="--order"):
            table3.parse_order(wrong)


def test_the_papers_row_and_the_difference_stand_below(tmp_path: Path) -> None:
    root = lattice(tmp_path / "r", near_paper, subsets=PATH, recipe="mtv_b16_10m", samples=PAPER_10M)
    table = table3.build(load(root), unavailable=VQA)
    assert names(table)[1:4] == ["VL", "paper (B/16 10M)", "measured − paper"]
    assert len(table.rows) == 1 + 5 * 3
    quoted = cell(table, 5, "imagenet/top1")
    assert (quoted.value, quoted.label, quoted.ci95) == (43.7, "+7.5", None)
    measured, difference = (cell(table, k, "nyuv2/rmse") for k in (4, 6))
    assert measured.value is not None
    assert difference.value == pytest.approx(measured.value - 0.568)
    assert measured.ci95 is not None
    assert difference.ci95 == pytest.approx([v - 0.568 for v in measured.ci95])
    gain = find("table3", quantity="gain", size="B/16", data="10M", metric="ade20k/miou")
    assert gain is not None
    assert cell(table, 14, "ade20k/miou").value == gain.value == 14.2
    # VQA was not measured, but the paper's number stands there.
    assert [cell(table, k, "vqa/score").text for k in (1, 3)] == ["not run: task not available", "–"]
    assert cell(table, 2, "vqa/score").value == 41.1
    kinds = [r["kind"] for r in table.data]
    assert {k: kinds.count(k) for k in kinds} == {"measured": 40, "paper": 40, "difference": 35}


def test_steps_of_the_paper_are_shown_where_the_row_above_is_the_papers(large: Path) -> None:
    table = table3.build(load(large), order=("ssl", "depth", "ground"))
    quoted = [cell(table, k, "imagenet/top1") for k, r in enumerate(table.rows) if r.name.startswith("paper")]
    assert [(c.value, c.label) for c in quoted] == [(60.8, ""), (65.4, "+4.6"), (67.9, ""), (7.1, "")]


@pytest.mark.parametrize(
    ("recipe", "size", "samples", "total", "scale", "reason"),
    [
        ("mtv_b16_10m", "b16", PAPER_10M, PAPER_10M, "B/16 10M", ""),
        ("mtv_l16_50m", "l16", 122_070 * 4096, 122_070 * 4096, "L/16 50M", ""),
        ("mtv_b16_100m", "b16", 390_625 * 8192, 390_625 * 8192, "B/16 100M", ""),
        ("mtv_b16_10m", "b16", 4096, PAPER_10M, "B/16 10M", "4,096 of 199,999,488 samples"),
        ("mtv_b16_10m", "b16", 4096, 4096, "B/16 10M", "4,096 samples, the paper's run has 200,000,000"),
        ("mtv_b16_10m", "l16", PAPER_10M, PAPER_10M, None, ""),
        ("mtv_b16_20m", "b16", PAPER_10M, PAPER_10M, None, ""),
        ("mini", "mini", 32_000, 32_000, None, ""),
    ],
)
def test_which_runs_are_the_papers(
    recipe: str, size: str, samples: int, total: int, scale: str | None, reason: str
) -> None:
    block = scale_of(training(recipe=recipe, size=size, samples=samples, samples_total=total))
    assert (str(block.scale) if block else None, block.reason if block else "") == (scale, reason)


def test_a_shorter_run_has_no_difference(tmp_path: Path) -> None:
    root = lattice(tmp_path / "r", additive, recipe="mtv_b16_10m", samples=4096, keys=["imagenet/top1"])
    table = table3.build(load(root))
    assert "measured − paper" not in names(table)
    assert names(table)[2] == "paper (B/16 10M), not comparable"
    assert "Not comparable with B/16 10M of the paper: 4,096 samples, the paper's run has 200,000,000." in notes(table)


def test_a_miniature_has_the_paper_beside_it_only_when_asked(mini: Path) -> None:
    records = load(mini)
    assert not any(n.startswith("paper") for n in names(table3.build(records)))
    table = table3.build(records, beside=parse_scale("L/16:50M"))
    assert names(table)[2] == "paper (L/16 50M), not comparable"
    assert cell(table, 2, "imagenet/top1").value == 60.8
    assert "measured − paper" not in names(table)
    reasons = {r["reason"] for r in table.data if r["kind"] == "paper"}
    assert reasons == {"mini, 32,000 samples: another model and other data"}
    with pytest.raises(UsageError, match="--beside B/16: no such block"):
        parse_scale("B/16")


def test_a_subset_or_another_protocol_says_so_instead_of_a_difference(tmp_path: Path) -> None:
    root = tmp_path / "r"
    more = {"subsets": PATH, "recipe": "mtv_b16_10m", "samples": PAPER_10M}
    lattice(root, additive, keys=["imagenet/top1"], label="subset (200 of 50000)", **more)
    lattice(root, additive, keys=["navi/avg_recall"], params={"mode": "centered"}, **more)
    lattice(root, additive, keys=["spair/avg_recall"], params={"mode": "probe3d"}, **more)
    table = table3.build(load(root))
    texts = {k: cell(table, "measured − paper", k) for k in ("imagenet/top1", "navi/avg_recall", "spair/avg_recall")}
    assert texts["imagenet/top1"].text == texts["navi/avg_recall"].text == "not comparable"
    assert texts["spair/avg_recall"].value == pytest.approx(30.0 - 17.0)
    said = dict(table.notes)
    (mark,) = cell(table, 2, "imagenet/top1").marks
    assert said[mark] == "not comparable: full set vs subset (200 of 50000)."
    assert "not comparable: mode: probe3d vs centered." in [said[m] for m in cell(table, 2, "navi/avg_recall").marks]
    assert [c.label for c in table.columns if c.key == "imagenet/top1"] == ["subset (200 of 50000)"]


def test_seeds_are_averaged_and_their_spread_stands_apart(tmp_path: Path) -> None:
    """Two spreads that differ on purpose: seeds are 4 apart, and the change between rows differs by seed too."""

    def score(objectives: tuple[str, ...], key: str, seed: int) -> float:
        return additive(objectives, key, 0) + 4 * seed + (seed if len(objectives) > 1 else 0)

    root = lattice(tmp_path / "r", score, seeds=(0, 1, 3), keys=["imagenet/top1"])
    table = table3.build(load(root))
    values = [[score(o, "imagenet/top1", s) for s in (0, 1, 3)] for o in PATH]
    for row, own in zip((1, 2, 3, 4), values, strict=True):
        assert cell(table, row, "imagenet/top1").value == pytest.approx(statistics.fmean(own))
    assert cell(table, 1, "imagenet/top1").label == f"SD {statistics.stdev(values[0]):.1f}"
    step = statistics.fmean(b - a for a, b in zip(values[0], values[1], strict=True))
    assert cell(table, 2, "imagenet/top1").label == f"+{step:.1f}; SD {statistics.stdev(values[1]):.1f}"
    gains = [b - a for a, b in zip(values[0], values[3], strict=True)]
    assert cell(table, 5, "imagenet/top1").label == f"SD {statistics.stdev(gains):.1f}"
    assert names(table)[0] == "mini, 32,000 samples, seeds 0, 1, 3"
    assert "± is the interval of the mean over test samples, SD the standard deviation over seeds" in notes(table)
    # The interval of the mean is over samples alone: three runs of binary outcomes on the same samples.
    ci95 = cell(table, 1, "imagenet/top1").ci95
    mean = np.mean([hits(v, "imagenet/top1", s) for v, s in zip(values[0], (0, 1, 3), strict=True)], axis=0)
    assert ci95 is not None
    assert (ci95[1] - ci95[0]) / 2 == pytest.approx(1.96 * 100 * np.std(mean) / np.sqrt(N), rel=0.1)
    record = next(r for r in table.data if r["row"] == "VL + SSL" and r["metric"] == "imagenet/top1")
    assert (record["seeds"], record["step"]) == ("0 1 3", pytest.approx(step))
    assert record["sd_over_seeds"] == pytest.approx(statistics.stdev(values[1]))
    assert record["step_lo"] < step < record["step_hi"]


def test_changes_use_the_seeds_that_both_rows_have(tmp_path: Path) -> None:
    root = lattice(tmp_path / "r", additive, subsets=[("vl",)], seeds=(0, 1), keys=["imagenet/top1"])
    lattice(root, additive, subsets=[("vl", "ssl")], seeds=(1, 2), keys=["imagenet/top1"])
    table = table3.build(load(root))
    assert [cell(table, k, "imagenet/top1").value for k in (1, 2)] == pytest.approx([30.5, 39.5])
    assert cell(table, 2, "imagenet/top1").label.startswith("+8.0;")
    assert cell(table, "Absolute Gain Δ", "imagenet/top1").text == "not run"


def test_missing_cells_say_why(tmp_path: Path) -> None:
    root = lattice(tmp_path / "r", additive, subsets=PATH[:2], keys=["imagenet/top1", "nyuv2/rmse"])
    lattice(root, additive, subsets=PATH[:1], keys=["coco/t2i_r1", "coco/i2t_r1"])
    write_failure(
        root, training(PATH[1]), "coco", message="coco (karpathy-test): MISSING\n  expected ...", stage="data"
    )
    write_failure(root, training(PATH[1]), "navi", message="a depth map is NaN")
    table = table3.build(load(root), unavailable=VQA)
    assert cell(table, "VL + SSL", "coco/t2i_r1").text == "dataset absent: coco (karpathy-test)"
    assert cell(table, "VL + SSL", "navi/avg_recall").text == "failed: DataError: a depth map is NaN"
    assert cell(table, "VL + SSL", "spair/avg_recall").text == "not run"
    assert cell(table, "VL", "vqa/score").text == "not run: task not available"
    assert {c.text for c in table.rows[3].cells} == {"not run", "not run: task not available"}


def test_a_seed_without_a_value_is_named(tmp_path: Path) -> None:
    root = lattice(tmp_path / "r", additive, subsets=PATH, seeds=(0, 1), keys=["imagenet/top1"])
    lattice(root, additive, subsets=PATH, seeds=(0,), keys=["spair/avg_recall"])
    table = table3.build(load(root))
    (mark,) = cell(table, "VL", "spair/avg_recall").marks
    assert dict(table.notes)[mark] == "without a value for seed 1."
    assert cell(table, "VL", "imagenet/top1").marks == ()


def test_a_mixture_is_refused_or_said(tmp_path: Path) -> None:
    root = lattice(tmp_path / "r", additive, subsets=PATH[:3], keys=["imagenet/top1"])
    lattice(root, additive, subsets=PATH[3:], keys=["imagenet/top1"], params={"templates": "simple"})
    with pytest.raises(UsageError, match="templates: none vs simple"):
        table3.build(load(root))
    table = table3.build(load(root), allow_mixed=True)
    odd = cell(table, "VL + SSL + Ground. + Depth", "imagenet/top1")
    assert odd.text == "protocol differs"
    assert "differs in templates: none vs simple" in dict(table.notes)[odd.marks[0]]
    assert cell(table, "VL", "imagenet/top1").value == pytest.approx(30.0)
    pair = cell(table4.build(load(root), allow_mixed=True), "SSL, Ground.", "imagenet/top1")
    assert pair.text == "not run: VL + Ground"
    lattice(root, additive, subsets=[("vl", "ground")], keys=["imagenet/top1"], params={"templates": "simple"})
    pair = cell(table4.build(load(root), allow_mixed=True), "SSL, Ground.", "imagenet/top1")
    assert pair.text == "protocol differs"


def test_without_sample_tables_values_stand_without_paired_intervals(tmp_path: Path) -> None:
    root = lattice(tmp_path / "r", additive, subsets=PATH, keys=["imagenet/top1"], tables=False)
    table = table3.build(load(root))
    assert cell(table, "VL + SSL", "imagenet/top1").label == "+8.0"
    gain = cell(table, "Absolute Gain Δ", "imagenet/top1")
    assert (gain.value, gain.ci95) == (pytest.approx(14.0), None)
    assert "imagenet/top1: no intervals of changes and means, for want of sample tables." in notes(table)


def test_of_every_run_the_last_point_is_shown(tmp_path: Path) -> None:
    root = tmp_path / "r"
    for samples in (8_000, 16_000, 32_000):
        for o in PATH:
            write(root, training(o, samples=samples, samples_total=32_000), {"imagenet/top1": 20.0 + samples / 4000})
    table = table3.build(load(root))
    assert [r.name for r in table.rows if r.kind == "group"] == ["mini, 32,000 samples"]
    assert cell(table, "VL", "imagenet/top1").value == pytest.approx(28.0)
    assert "Earlier checkpoints of the same runs are left out: 2." in notes(table)


def test_other_models_are_no_study(tmp_path: Path) -> None:
    write(tmp_path / "r", None, {"imagenet/top1": 68.0})
    for build in (table3.build, table4.build):
        with pytest.raises(UsageError, match="checkpoints of mtv-train"):
            build(load(tmp_path / "r"))


def test_other_tasks_of_a_study_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """kNN under two protocols is no reason to refuse a table without kNN."""
    root = lattice(tmp_path / "r", additive, subsets=PATH, keys=["imagenet/top1"])
    write(root, training(), {"knn/top1": 20.0}, params={"k": 5})
    write(root, training(), {"knn/top1": 21.0}, params={"k": 9})
    assert cell(table3.build(load(root)), "VL", "imagenet/top1").value == pytest.approx(30.0)


# Table 4


def synergy_by_hand(a: float, b: float, both: float) -> float:
    return 100 * (both - max(a, b)) / max(a, b)


def test_synergy_and_its_average_by_hand(mini: Path) -> None:
    """Gains of 8, 4 and 2 that add up: (12 - 8) / 8, (10 - 8) / 8, (6 - 4) / 4."""
    table = table4.build(load(mini), unavailable=VQA)
    assert names(table) == ["mini, 32,000 samples", "SSL, Ground.", "SSL, Depth", "Depth, Ground."]
    assert [c.title for c in table.columns] == ["IN-1k", "COCO I→T", "ADE20k", "NAVI", "SPair", "NYUv2", "Average"]
    for place, gains in ((1, (8, 4, 12)), (2, (8, 2, 10)), (3, (2, 4, 6))):
        for key in ("imagenet/top1", "ade20k/miou", "nyuv2/rmse", "average"):
            assert cell(table, place, key).value == pytest.approx(synergy_by_hand(*gains)), (place, key)
    ci95 = cell(table, 1, "imagenet/top1").ci95
    assert ci95 is not None
    assert ci95[0] < 50 < ci95[1]


def test_without_an_individual_gain_it_is_undefined_and_leaves_the_average(tmp_path: Path) -> None:
    def score(objectives: tuple[str, ...], key: str, seed: int) -> float:
        falls = key == "imagenet/top1" and len(objectives) == 2
        return 25.0 if falls else additive(objectives, key, seed)

    table = table4.build(load(lattice(tmp_path / "r", score)))
    lost = cell(table, "SSL, Ground.", "imagenet/top1")
    assert (lost.value, lost.text) == (None, "undefined")
    assert "no individual gain" in dict(table.notes)[lost.marks[0]]
    average = cell(table, "SSL, Ground.", "average")
    assert average.value == pytest.approx(50.0)
    assert average.label == "5 of 6"


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    without = [o for o in LATTICE if o != ("vl", "depth")]
    root = lattice(tmp_path / "r", additive, subsets=without, keys=["imagenet/top1", "nyuv2/rmse"])
    table = table4.build(load(root))
    assert cell(table, "SSL, Depth", "imagenet/top1").text == "not run: VL + Depth"
    assert cell(table, "Depth, Ground.", "average").text == "–"
    assert cell(table, "SSL, Ground.", "imagenet/top1").value == pytest.approx(50.0)
    assert cell(table, "SSL, Ground.", "navi/avg_recall").text == "not run"
    write_failure(root, training(("vl", "ssl")), "coco", message="out of memory")
    again = cell(table4.build(load(root)), "SSL, Ground.", "coco/i2t_r1")
    assert again.text == "failed: DataError: out of memory"


def test_the_papers_synergy_is_marked_where_it_cannot_be(large: Path) -> None:
    table = table4.build(load(large))
    assert names(table)[2:4] == ["paper (L/16 50M)", "measured − paper"]
    said = dict(table.notes)
    for key, printed in (("ade20k/miou", 30.7), ("navi/avg_recall", 21.8)):
        quoted = cell(table, 2, key)
        assert quoted.value == printed
        assert [m for m in quoted.marks if "is more than Table 3 allows" in said[m]]
    assert cell(table, 2, "spair/avg_recall").marks == ()
    assert cell(table, 3, "imagenet/top1").value == pytest.approx(50.0 - 47.8)
    assert cell(table, 3, "average").value == pytest.approx(50.0 - 30.7)


def test_an_average_over_fewer_metrics_does_not_compare(tmp_path: Path) -> None:
    root = lattice(
        tmp_path / "r", additive, recipe="mtv_b16_10m", samples=PAPER_10M, keys=["imagenet/top1", "nyuv2/rmse"]
    )
    table = table4.build(load(root))
    assert cell(table, "SSL, Ground.", "average").label == "2 of 6"
    assert cell(table, 3, "average").text == "not comparable"
    assert "an average over 2 of 6 metrics" in notes(table)


def test_intervals_over_seeds_are_said_to_be_so(tmp_path: Path) -> None:
    root = lattice(tmp_path / "r", additive, seeds=(0, 1), keys=["imagenet/top1"])
    table = table4.build(load(root))
    assert "of training seeds: not the fitting" in notes(table)
    assert "not training seeds" not in notes(table)
    record = next(r for r in table.data if r["metric"] == "imagenet/top1")
    assert (record["seeds"], record["quantity"], record["objectives"]) == ("0 1", "synergy", "ssl+ground")
    assert ORDER[1:3] == ("ssl", "ground")
