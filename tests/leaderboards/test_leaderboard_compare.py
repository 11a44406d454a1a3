"""compare, status and power read results alone; their numbers come from the sample tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtv.errors import CacheError, UsageError
from mtv.leaderboards.compare import compare, comparison_table, p_text, select_model
from mtv.leaderboards.formats import FORMATS, render
from mtv.leaderboards.frame import load
from mtv.leaderboards.power import power_table
from mtv.leaderboards.status import status_table
from mtv.recipes import Recipe
from mtv.results import MetricValue
from mtv.stats import evaluate, holm, mcnemar, paired_difference

Write = Callable[..., Path]
Metric = Callable[..., MetricValue]
IMAGENET = {
    "top1": Recipe(kind="ratio", column="rank", at_most=1, headline=True),
    "mean_class_acc": Recipe(kind="ratio", column="rank", at_most=1, group="label"),
}
COCO = {
    f"{d}_r1": Recipe(kind="ratio", column="rank", at_most=1, where={"part": d}, headline=d == "t2i")
    for d in ("t2i", "i2t")
}
COCO["rsum"] = Recipe(kind="sum", of=("t2i_r1", "i2t_r1"))


def imagenet(seed: int, share: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.array([f"val_{k:05d}" for k in range(600)], dtype=object)
    order = rng.permutation(600)
    rank = np.where((np.arange(600) * 7919 % 600) / 600 + rng.normal(0, 0.15, 600) < share, 1, 4)
    return {
        k: v[order]
        for k, v in {"sample_id": ids, "cluster_id": ids, "rank": rank, "label": np.arange(600) % 20}.items()
    }


def coco(seed: int, share: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = np.r_[np.arange(80), np.repeat(np.arange(80), 5)]
    return {
        "sample_id": np.array([f"i{k}" for k in range(80)] + [f"c{k}" for k in range(400)], dtype=object),
        "cluster_id": np.array([f"{k:03d}" for k in image], dtype=object),
        "part": np.array(["i2t"] * 80 + ["t2i"] * 400, dtype=object),
        "rank": np.where(rng.random(480) < share, 1, 3),
    }


@pytest.fixture
def pair(write_result: Write, tmp_path: Path) -> Path:
    """Models `a` and `b` on imagenet and coco; `b` also has navi."""
    for model, seed, share in (("a", 1, 0.5), ("b", 2, 0.58)):
        for task, recipes, table in (("imagenet", IMAGENET, imagenet(seed, share)), ("coco", COCO, coco(seed, share))):
            named = {f"{task}/{k}": v for k, v in recipes.items()}
            write_result(model, task, evaluate(named, table, n_resamples=200), table=table)
    return tmp_path / "results"


def models(store: Path, *names: str) -> list:
    records = load(store)
    return [select_model(records, n) for n in names or ("a", "b")]


def test_rows_hold_the_paired_differences_of_the_headlines(pair: Path) -> None:
    result = compare(*models(pair), n_resamples=300)
    assert [r.key for r in result.rows] == ["imagenet/top1", "coco/t2i_r1", "coco/i2t_r1"]
    top1 = result.rows[0].difference
    a, b = (
        dict(zip(t["sample_id"].tolist(), (t["rank"] == 1).tolist(), strict=True))
        for t in (imagenet(1, 0.5), imagenet(2, 0.58))
    )
    n01, n10 = (sum(x[k] and not y[k] for k in a) for x, y in ((b, a), (a, b)))
    assert (top1.n01, top1.n10) == (n01, n10)
    assert top1.p == mcnemar(n01, n10)
    assert top1.delta == pytest.approx((n01 - n10) / 6)
    named = {f"coco/{k}": v for k, v in COCO.items()}
    assert result.rows[1].difference == paired_difference(
        named, "coco/t2i_r1", coco(1, 0.5), coco(2, 0.58), n_resamples=300
    )
    assert [r.p_holm for r in result.rows] == holm([r.difference.p for r in result.rows])


def test_all_metrics_include_combinations_and_macro_means(pair: Path) -> None:
    keys = [r.key for r in compare(*models(pair), all_metrics=True, n_resamples=50).rows]
    assert keys == [
        "imagenet/top1",
        "imagenet/mean_class_acc",
        "coco/t2i_r1",
        "coco/i2t_r1",
        "coco/rsum",
    ]


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_comparison_renders_in_every_format(pair: Path, fmt: str) -> None:
    text = render(comparison_table(compare(*models(pair), n_resamples=50)), fmt)
    assert "imagenet" in text.lower()
    if fmt in ("rich", "md"):
        assert "n01 / n10" in text
        assert "test samples only" in text


def test_what_only_one_model_has_is_listed_not_hidden(pair: Path, write_result: Write, make_metric: Metric) -> None:
    write_result("b", "navi", {"navi/avg_recall": make_metric(37.0, 36, 38)})
    write_result("a", "spair", {}, status="failed", error={"type": "E", "message": "m", "stage": "s"})
    write_result("b", "spair", {"spair/avg_recall": make_metric(15.0, 14, 16)})
    result = compare(*models(pair), n_resamples=50)
    assert result.skipped == ("navi: no result of A.", "spair: failed for A.")
    assert "navi: no result of A." in [t for _, t in comparison_table(result).notes]


def test_differing_protocol_or_data_is_refused_with_the_field(write_result: Write, tmp_path: Path) -> None:
    table = imagenet(1, 0.5)
    named = {f"imagenet/{k}": v for k, v in IMAGENET.items()}
    values = evaluate(named, table, n_resamples=20)
    write_result("a", "imagenet", values, table=table, params={"templates": "openai80"})
    write_result("b", "imagenet", values, table=table, params={"templates": "openai7"})
    write_result(
        "c",
        "imagenet",
        values,
        table=table,
        params={"templates": "openai80"},
        data="other",
        label="subset (600 of 50000)",
    )
    with pytest.raises(UsageError, match="differ in templates: openai80 vs openai7"):
        compare(*models(tmp_path / "results", "a", "b"))
    with pytest.raises(UsageError, match=r"data label: full set vs subset \(600 of 50000\); data fingerprint"):
        compare(*models(tmp_path / "results", "a", "c"))


def test_differing_samples_are_an_error_not_an_inner_join(write_result: Write, tmp_path: Path) -> None:
    named = {f"imagenet/{k}": v for k, v in IMAGENET.items()}
    for model, keep in (("a", slice(0, 600)), ("b", slice(0, 599))):
        table = {k: v[keep] for k, v in imagenet(1, 0.5).items()}
        write_result(model, "imagenet", evaluate(named, table, n_resamples=20), table=table)
    with pytest.raises(UsageError, match="1 only in the first"):
        compare(*models(tmp_path / "results"))


def test_a_record_that_its_samples_contradict_is_refused(write_result: Write, tmp_path: Path) -> None:
    named = {f"imagenet/{k}": v for k, v in IMAGENET.items()}
    table = imagenet(1, 0.5)
    values = evaluate(named, table, n_resamples=20)
    write_result("a", "imagenet", values, table=table)
    path = write_result("b", "imagenet", values, table=table)
    value = values["imagenet/top1"].value
    path.write_text(path.read_text().replace(f'"value": {value}', '"value": 99.0', 1))
    with pytest.raises(CacheError, match=r"imagenet/top1 is 99\.0 in the record"):
        compare(*models(tmp_path / "results"))


def test_changed_sample_files_are_refused(pair: Path) -> None:
    file = next(pair.glob("b-*/imagenet/*.parquet"))
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(CacheError, match="not the table"):
        compare(*models(pair))


def test_models_are_found_by_alias_spec_and_fingerprint(pair: Path, write_result: Write, make_metric: Metric) -> None:
    records = load(pair)
    by_name = select_model(records, "a")
    assert select_model(records, "timm:a") == by_name
    assert select_model(records, by_name[0].model[1][:8]) == by_name
    with pytest.raises(UsageError, match="unknown model"):
        select_model(records, "zebra")
    write_result("a", "navi", {"navi/avg_recall": make_metric(37.0, 36, 38)}, weights="other")
    with pytest.raises(UsageError, match="names 2 models"):
        select_model(load(pair), "a")


def test_nothing_in_common_is_an_error(write_result: Write, make_metric: Metric, tmp_path: Path) -> None:
    write_result("a", "navi", {"navi/avg_recall": make_metric(37.0, 36, 38)})
    write_result("b", "spair", {"spair/avg_recall": make_metric(15.0, 14, 16)})
    with pytest.raises(UsageError, match="navi: no result of B"):
        compare(*models(tmp_path / "results"))


def test_p_text() -> None:
    assert [p_text(p) for p in (None, 1.0, 0.0123, 0.0009)] == ["n/a", "1.000", "0.012", "<0.001"]


def test_status_names_state_and_reason(store: Path, write_result: Write, make_metric: Metric) -> None:
    path = write_result(
        "mtv-b16", "navi", {"navi/avg_recall": make_metric(40.0, 39, 41)}, table={"sample_id": np.arange(3)}
    )
    next(path.parent.glob("*.parquet")).unlink()
    write_result("clip-b16", "knn", {"knn/top1": make_metric(60.0, 59, 61)}, params={"limit": 50}, status="partial")
    table = status_table(load(store), models=["siglip-b16"], tasks=["vqa"])
    keys = [c.key for c in table.columns]
    cells = {(r.name, k): c.text for r in table.rows for k, c in zip(keys, r.cells, strict=True)}
    assert keys == ["imagenet", "knn", "coco", "navi", "spair", "nyuv2", "vqa"]
    assert cells["clip-b16", "imagenet"] == "done"
    assert cells["clip-b16", "coco"] == "done: subset (79 of 5000)"
    assert cells["clip-b16", "knn"] == "partial: limit 50"
    assert cells["mtv-b16", "navi"].startswith("incomplete: its sample table is missing")
    assert cells["mtv-b16", "spair"] == "failed: DataError: SPair-71k: 17 of 18 classes | see `data check` (in open)"
    assert cells["siglip-b16", "imagenet"] == "missing"
    assert cells["clip-b16", "vqa"] == "missing"
    assert {d["state"] for d in table.data} == {"done", "partial", "incomplete", "failed", "missing"}
    for fmt in FORMATS:
        assert "clip" in render(table, fmt)


def test_power_of_half_a_point_on_coco() -> None:
    table = power_table(0.5, ["coco"])
    rows = {d["samples"]: d for d in table.data}
    assert rows["images"]["half_width_at_10_percent_discordant"] == pytest.approx(0.88, abs=0.005)
    assert rows["images"]["visible_at_percent_discordant"] == pytest.approx(
        100 * 5_000 * (0.005 / 1.959964) ** 2, rel=1e-4
    )
    assert len(rows) == 3
    assert power_table(0.5, ["imagenet"]).data[0]["half_width_at_10_percent_discordant"] == pytest.approx(
        0.28, abs=0.005
    )


def test_power_says_never_and_refuses_graded_tasks() -> None:
    table = power_table(0.5, n=79)
    assert table.data[0]["visible_at_percent_discordant"] is None
    assert "never" in render(table, "md")
    with pytest.raises(UsageError, match="spair depends on the spread"):
        power_table(0.5, ["spair"])
    with pytest.raises(UsageError, match="imagenet"):
        power_table(0.5, ["imagnet"])
