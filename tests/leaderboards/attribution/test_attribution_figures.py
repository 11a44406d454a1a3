"""Figures hold what the numbers say, and are written as real pictures."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtv.leaderboards.attribution.analysis import StudyAnalysis, analyse
from mtv.leaderboards.attribution.gradients import GradientPoint
from mtv.leaderboards.attribution.scaling import run_ends, scaling_points
from mtv.leaderboards.figures.attribution import draw_attribution
from mtv.leaderboards.figures.gradients import draw_gradients
from mtv.leaderboards.figures.save import save_figure
from mtv.leaderboards.figures.scaling import draw_scaling, samples_text
from mtv.leaderboards.figures.synergy import draw_synergy

Skills = Callable[[Sequence[str]], float]
SHOWN = ("imagenet/top1", "navi/avg_recall", "spair/avg_recall", "nyuv2/rmse")


@pytest.fixture
def analysis(writer: Any, skills: Skills, table_of: Any) -> StudyAnalysis:
    """All subsets; NAVI falls with every objective, SPair was never run."""
    writer.lattice(skills, ["imagenet", "nyuv2"])
    for objectives in writer.study().subsets:
        writer.cell(objectives, {"navi": table_of("navi", 0.6 - 0.1 * len(objectives))})
    return analyse(writer.study(), SHOWN, resamples=100)


def texts(figure: Any) -> list[str]:
    import matplotlib.text

    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def picture(figure: Any, path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit is a warning
        save_figure(figure, path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, "not empty"
    return pixels


def test_the_heat_map_names_undefined_and_missing_cells(analysis: StudyAnalysis, tmp_path: Path) -> None:
    figure = draw_synergy(analysis)
    found = texts(figure)
    assert found.count("undefined") == 3
    assert found.count("missing") == 3
    value = analysis.synergies[("ssl", "ground"), "imagenet/top1"].value
    assert value is not None
    assert f"{100 * value:+.1f}".replace("-", "−") in found
    assert "Average" in found
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    assert len(hatched) == 3
    picture(figure, tmp_path / "synergy.png")


def test_bars_are_shapley_values_beside_the_papers_order(analysis: StudyAnalysis, tmp_path: Path) -> None:
    figure = draw_attribution([analysis.attributions[k] for k in SHOWN], title="a study")
    heights = [[p.get_height() for p in axes.patches] for axes in figure.axes[: len(SHOWN)]]
    for key, own in zip(SHOWN, heights, strict=True):
        expected = [e.value for c in analysis.attributions[key].contributions for e in (c.shapley, c.paper_order)]
        assert own == pytest.approx(expected)
    assert "missing\n\nspair not measured" in texts(figure)
    assert "gain [m, fall]" in texts(figure)
    picture(figure, tmp_path / "attribution.png")


def test_scaling_curves_hold_every_point(writer: Any, table_of: Any, tmp_path: Path) -> None:
    for samples, total in ((8_000, 64_000), (16_000, 64_000), (64_000, 64_000), (16_000, 16_000)):
        for objectives in (("vl",), ("vl", "ssl", "ground", "depth")):
            skill = 0.1 * np.log10(samples) + 0.05 * len(objectives)
            tables = {t: table_of(t, skill) for t in ("imagenet", "nyuv2")}
            writer.cell(objectives, tables, samples=samples, samples_total=total)
    points = scaling_points(writer.studies(), ["imagenet/top1", "nyuv2/rmse"])
    figure = draw_scaling(points, references={"imagenet/top1": ("CLIP-Base", 68.3)})
    drawn = {tuple(line.get_ydata()) for line in figure.axes[0].lines}
    for line in {p.line for p in points}:
        own = tuple(p.value for p in points if p.line == line and p.metric == "imagenet/top1")
        assert own in drawn
    for ends in run_ends(points):
        assert ends[0].metric == "nyuv2/rmse" or tuple(p.value for p in ends) in drawn
    said = texts(figure)
    assert "ends of runs of several lengths" in said
    assert sum("run of" in t for t in said) == 1, "the run of one point has no line whose style could be told"
    picture(figure, tmp_path / "scaling.png")
    assert {"CLIP-Base", "IN-1k top-1 [%]", "NYUv2 RMSE [m] ↓", "64k"} <= set(texts(figure)), "once ticks are drawn"


@pytest.mark.parametrize(
    ("samples", "text"), [(500, "500"), (32_000, "32k"), (1_500_000, "1.5M"), (3.2e9, "3.2B"), (0, "0")]
)
def test_samples_are_short(samples: float, text: str) -> None:
    assert samples_text(samples) == text


def test_labels_of_close_checkpoints_do_not_overlap(writer: Any, table_of: Any) -> None:
    for samples in (1_000, 19_200, 20_400, 64_000):
        writer.cell(("vl",), {"imagenet": table_of("imagenet", 0.4)}, samples=samples, samples_total=64_000)
    (axes,) = draw_scaling(scaling_points(writer.studies(), ["imagenet/top1"])).axes
    assert list(axes.get_xticks()) == [1_000, 20_400, 64_000]
    assert list(axes.lines[0].get_xdata()) == [1_000, 19_200, 20_400, 64_000], "the points stay"


def cosines(run: str, objectives: tuple[str, ...], level: float) -> list[GradientPoint]:
    rng, out = np.random.default_rng(len(run)), []
    for step in range(0, 500, 25):
        for i, a in enumerate(objectives):
            for b in objectives[i + 1 :]:
                value = level * np.exp(-step / 200) + 0.1 * len(b) / 6 + rng.normal(0, 0.02)
                out.append(
                    GradientPoint(
                        run=run,
                        recipe_hash="h",
                        objectives=objectives,
                        seed=0,
                        step=step,
                        samples=64 * step,
                        kind="cosine",
                        a=a,
                        b=b,
                        value=float(value),
                    )
                )
    return out


def test_cosine_curves_stand_beside_synergy(analysis: StudyAnalysis, tmp_path: Path) -> None:
    full = ("vl", "ssl", "ground", "depth")
    points = [*cosines("a", full, 0.4), *cosines("bb", full, 0.3), *cosines("ccc", ("vl", "ssl"), 0.2)]
    figure = draw_gradients(points, list(analysis.averages.values()))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["VL + SSL", "VL + SSL + Ground + Depth", "Synergy of the same pairs"]
    means = [line for line in figure.axes[1].lines if line.get_marker() not in ("None", "")]
    assert len(means) == 6
    expected = np.mean(
        [[p.value for p in points if p.run == r and (p.a, p.b) == ("vl", "ssl")] for r in ("a", "bb")], 0
    )
    np.testing.assert_allclose(np.asarray(means[0].get_ydata(), dtype=float), expected)
    widths = [p.get_width() for p in figure.axes[2].patches]
    assert widths == pytest.approx([100 * a.value for a in analysis.averages.values() if a.value is not None])
    picture(figure, tmp_path / "gradients.png")


def test_without_anything_to_draw_a_figure_is_still_a_figure(tmp_path: Path) -> None:
    for k, figure in enumerate((draw_scaling([]), draw_gradients([]), draw_attribution([]))):
        save_figure(figure, tmp_path / f"{k}.png")
        assert (tmp_path / f"{k}.png").stat().st_size > 1000


def test_drawing_uses_no_global_state() -> None:
    program = (
        "import sys, mtv.leaderboards.figures.synergy, mtv.leaderboards.figures.attribution,"
        "mtv.leaderboards.figures.scaling as s, mtv.leaderboards.figures.gradients as g\n"
        "assert 'matplotlib' not in sys.modules\n"
        "s.draw_scaling([]); g.draw_gradients([])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
