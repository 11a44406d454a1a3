"""Radar, files of figures, and figures inside the page."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_document import parse
from report_stores import put

from mtv.errors import CacheError, UsageError
from mtv.leaderboards.figures.every import drawings, studied
from mtv.leaderboards.figures.radar import (
    INNER,
    MOST_OUTLINES,
    draw_radar,
    leaders,
    radar_of_models,
    radar_of_study,
    radar_table,
    radii,
)
from mtv.leaderboards.figures.save import figure_bytes, save_figure
from mtv.leaderboards.figures.style import MARKERS, OBJECTIVE_COLOURS, PALETTE, colour, marker, new_figure, styled
from mtv.leaderboards.frame import load, metrics_of
from mtv.leaderboards.report.inline import inline_svg
from mtv.leaderboards.study import studies

values = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=9)


def naive_radii(given: list[float | None], higher: bool) -> list[float | None]:
    """Rank by rank, in words: how far from the worst, as a share of the way to the best."""
    scores = [None if v is None else (v if higher else -v) for v in given]
    known = [s for s in scores if s is not None]
    out: list[float | None] = []
    for s in scores:
        if s is None:
            out.append(None)
        elif max(known) == min(known):
            out.append(1.0)
        else:
            out.append(INNER + (1 - INNER) * ((s - min(known)) / (max(known) - min(known))))
    return out


@given(values, st.booleans())
def test_radii_against_the_naive_ones(given: list[float | None], higher: bool) -> None:
    found, expected = radii(given, higher_is_better=higher), naive_radii(given, higher)
    assert [r is None for r in found] == [r is None for r in expected]
    known = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None]
    assert np.allclose([a for a, _ in known], [b for _, b in known])
    assert all(INNER - 1e-9 <= a <= 1 + 1e-9 for a, _ in known)


def test_the_radar_shows_the_values_of_the_records(made_store: Path) -> None:
    records = load(made_store)
    radar = radar_of_models(records)
    assert [a.key for a in radar.axes] == ["imagenet/top1", "navi/avg_recall", "spair/avg_recall", "nyuv2/rmse"]
    for s in records:
        for key, metric in metrics_of(s.record).items():
            if s.record.status == "complete" and metric.headline and s.record.model_name in radar.outlines:
                place = [a.key for a in radar.axes].index(key)
                assert radar.outlines[s.record.model_name][place] == metric.value
    # The limited run answers another question, and is no outline.
    assert "limited" not in radar.outlines
    assert any("imagenet/top1" in n and "left out" in n for n in radar.notes)
    for name, count in leaders(radar).items():
        best = [max, max, max, min]
        columns = [[v for v in c if v is not None] for c in zip(*radar.outlines.values(), strict=True)]
        assert count == sum(b(c) == v for b, c, v in zip(best, columns, radar.outlines[name], strict=True))
    table = radar_table(radar)
    assert [r.name for r in table.rows] == list(radar.outlines)


def test_a_missing_value_is_a_gap_and_no_zero(made_store: Path) -> None:
    radar = radar_of_models(
        [s for s in load(made_store) if (s.record.model_name, s.record.task) != ("vit-bad", "navi")]
    )
    assert radar.outlines["vit-bad"][1] is None
    lines = {line.get_label(): line for line in draw_radar(radar).axes[0].lines}
    x = lines["vit-bad"].get_xdata()
    assert np.isnan(x).tolist() == [False, True, False, False, False]
    assert not np.isnan(lines["vit-good"].get_xdata()).any()


def test_too_few_axes_or_models_say_so(made_store: Path) -> None:
    two = radar_of_models([s for s in load(made_store) if s.record.task in ("navi", "spair")])
    assert "needs 3 metrics" in two.obstacle
    alone = radar_of_models(load(made_store, models=["vit-good"]))
    assert alone.obstacle


def test_too_many_models_are_cut_and_named(made_study: Path) -> None:
    radar = radar_of_models(load(made_study))
    assert len(radar.outlines) == MOST_OUTLINES
    # The finished runs of the first seed: all eight sets of objectives.
    assert {n.split("-")[-2:][0] + n.split("-")[-1] for n in radar.outlines} == {"s032000"}
    assert "Not drawn" in radar.notes[-1]
    assert "s1-32000" in radar.notes[-1]


def test_a_study_is_drawn_as_the_chain_of_the_paper_with_means_over_seeds(made_study: Path) -> None:
    records = load(made_study)
    study = next(s for s in studies(records) if s.samples == 32_000)
    radar = radar_of_study(study, records)
    assert list(radar.outlines) == ["VL", "VL + SSL", "VL + SSL + Ground", "VL + SSL + Ground + Depth"]
    found = [c.metric("imagenet/top1") for c in study.of(("vl",))]
    assert radar.outlines["VL"][0] == pytest.approx(np.mean([m.value for m in found if m]))
    assert radar.notes == ("Means over 2 training seeds.",)


def test_what_a_study_allows_and_what_not(made_store: Path, made_study: Path) -> None:
    shown, missing = drawings(load(made_study), studied(load(made_study)))
    kinds = [d.name.split("-")[0] for d in shown]
    assert kinds[:4] == ["radar", "radar", "synergy", "attribution"]
    assert kinds[-1] == "scaling"
    assert len({d.name for d in shown}) == len(shown)
    assert [o.reason for o in missing if o.title.startswith("Cosines")]
    # Half way only four of the eight sets were measured.
    assert any("16,000" in o.title and o.title.startswith("Attribution") for o in missing)
    shown, missing = drawings(load(made_store), studied(load(made_store)))
    assert [d.name for d in shown] == ["radar"]
    assert len(missing) == 5
    assert all(o.reason for o in missing)


def test_one_number_of_samples_makes_no_scaling_curve(made_study: Path) -> None:
    records = [s for s in load(made_study) if s.record.model["training"]["samples"] == 32_000]
    _, missing = drawings(records, studied(records))
    reasons = {o.title: o.reason for o in missing}
    assert reasons["Scaling curves"] == "every run was measured after one number of samples only"


def test_colours_can_be_told_apart_and_repeat_with_another_marker() -> None:
    assert len(set(PALETTE)) == len(PALETTE) == len(MARKERS) == 8
    assert set(OBJECTIVE_COLOURS) == {"vl", "ssl", "ground", "depth"}
    assert len(set(OBJECTIVE_COLOURS.values())) == 4
    looks = {(colour(k), marker(k)) for k in range(16)}
    assert len(looks) == 16


def test_a_users_settings_do_not_reach_a_figure() -> None:
    import matplotlib

    @styled
    def draw() -> bytes:
        figure = new_figure(6, 4)
        figure.subplots().plot([1, 2], label="x")
        return figure_bytes(figure, "png")

    plain = draw()
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "savefig.dpi": 40}):
        assert draw() == plain
        assert matplotlib.rcParams["font.size"] == 30


SCRIPT = """
import hashlib
from mtv.leaderboards.figures.save import figure_bytes
from mtv.leaderboards.figures.style import new_figure
figure = new_figure(6, 4)
axes = figure.subplots()
axes.plot([1, 3, 2], label="é ± →")
axes.fill_between([0, 1], [0, 1], [1, 2], alpha=0.3)
axes.legend()
print([hashlib.sha256(figure_bytes(figure, f)).hexdigest() for f in ("pdf", "png", "svg")])
"""


def test_equal_figures_give_equal_bytes_in_every_process() -> None:
    seen = set()
    for seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed}
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
        seen.add(done.stdout)
    assert len(seen) == 1


def test_files_are_what_their_suffix_says(tmp_path: Path) -> None:
    figure = new_figure(6, 4)
    figure.subplots().plot([1, 2])
    starts = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}
    for suffix, start in starts.items():
        save_figure(figure, tmp_path / f"deep/er/f.{suffix}")
        assert (tmp_path / f"deep/er/f.{suffix}").read_bytes().startswith(start)
    with pytest.raises(UsageError, match=r"figure format 'jpg'"):
        save_figure(figure, tmp_path / "f.jpg")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="file"):
        save_figure(figure, tmp_path / "file" / "f.png")


def test_two_figures_in_one_page_share_no_id_and_no_style() -> None:
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.plot([1, 2], marker="o")
    axes.set_clip_on(True)
    page = "".join(inline_svg(figure, key=k, alt='a "quoted" <alt>') for k in ("one", "two"))
    document = parse(page)
    ids = [n.attrs["id"] for n in document.all() if "id" in n.attrs]
    assert len(set(ids)) == len(ids) > 4
    used = {h[1:] for n in document.all() for k, h in n.attrs.items() if k.endswith("href")}
    used |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert used
    assert used <= set(ids)
    assert not document.all("style")
    assert not document.all("metadata")
    assert document.all("svg")[0].attrs["aria-label"] == 'a "quoted" <alt>'


def test_a_model_measured_on_one_task_alone_is_no_outline(tmp_path: Path) -> None:
    for model in ("a", "b"):
        for task in ("imagenet", "navi", "nyuv2"):
            put(tmp_path, model, task, 0.4 if model == "a" else 0.7)
    put(tmp_path, "c", "ade20k")
    radar = radar_of_models(load(tmp_path))
    assert list(radar.outlines) == ["a", "b"]
    assert [a.key for a in radar.axes] == ["imagenet/top1", "navi/avg_recall", "nyuv2/rmse"]


def write_run(folder: Path, objectives: tuple[str, ...], recipe_hash: str) -> None:
    """A run of the trainer, as far as its log tells of gradients."""
    pairs = [f"{a}-{b}" for a, b in itertools.combinations(objectives, 2)]
    lines: list[dict[str, object]] = [{"kind": "start", "recipe_hash": recipe_hash, "tasks": list(objectives)}]
    lines += [
        {"kind": "gradients", "step": step, **{f"cosine/{p}": 0.5 - 0.01 * step for p in pairs}} for step in (0, 10, 20)
    ]
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    recipe = {"tasks": list(objectives), "seed": 0, "optim": {"global_batch": 64}}
    (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")


def test_gradients_of_named_runs_stand_with_their_study(made_study: Path, tmp_path: Path) -> None:
    records = load(made_study)
    training = next(s.record.model["training"] for s in records if len(s.record.model["training"]["objectives"]) == 4)
    write_run(tmp_path / "sweep" / "full", tuple(training["objectives"]), training["recipe_hash"])
    write_run(tmp_path / "sweep" / "other", ("vl", "ssl"), "of no study")
    shown, missing = drawings(records, studied(records), runs=[tmp_path / "sweep"])
    found = [d for d in shown if d.name.startswith("gradients")]
    # The same runs were measured at the end and half way: two studies, then the run without results.
    assert [d.title.partition(": ")[2] for d in found] == [
        "mini, 32,000 samples", "mini, 16,000 of 32,000 samples", "runs without results",
    ]  # fmt: skip
    assert figure_bytes(found[-1].draw(), "png").startswith(b"\x89PNG")
    assert [r.name for r in found[-1].numbers.rows] == ["VL + SSL"]
    assert not any("gradients" in o.title for o in missing)
    with pytest.raises(UsageError, match="nowhere"):
        drawings(records, studied(records), runs=[tmp_path / "nowhere"])
