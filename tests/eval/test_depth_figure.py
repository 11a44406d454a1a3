"""The side-by-side figure: what its panels show, against the planted disparity, and the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rel_world import write_kitti, write_models, write_nyu
from run_helpers import Answer

from mtv.encoders import load
from mtv.encoders.spec import expand_specs
from mtv.errors import UsageError
from mtv.eval.depth_figure import depth_figure
from mtv.eval.protocols_rel import RelKittiProtocol, RelNyuProtocol
from mtv.eval.rel_frames import read_frame
from mtv.eval.rel_panels import GAP, MARGIN, TALLEST, UNKNOWN, WIDTH, aligned_depth, block_means
from mtv.eval.tasks.rel_depth import RelDepthTask, align_config
from mtv.probes.depth_align import score_relative

Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nyu(tmp_path_factory.mktemp("nyu"))


def panel(figure: Image.Image, column: int, top: int, height: int = TALLEST) -> np.ndarray:
    """Pixels of a square panel, which stands in the middle of its column."""
    left = MARGIN + column * (WIDTH + GAP) + (WIDTH - height) // 2
    return np.asarray(figure.crop((left, top, left + height, top + height)))


def first_row(figure: Image.Image) -> int:
    """Where the first photo begins, which is grey but not white."""
    column = np.asarray(figure.convert("L"))[:, MARGIN + WIDTH // 2]
    long = [y for y in range(len(column) - 60) if bool((column[y : y + 60] < 250).all())]
    return long[0]


def test_a_perfect_prediction_looks_like_the_truth(models: str, nyu: Path) -> None:
    """One range of colours per row: where there is truth, both panels show the same, and the error is the palest."""
    specs = expand_specs([f"good={models}:Reads", f"bad={models}:Rough"])
    figure = depth_figure(specs, nyu, RelNyuProtocol(), n=2)
    assert figure.width == 6 * (WIDTH + GAP) - GAP + 2 * MARGIN  # image, two predictions, truth, two errors
    top = first_row(figure)
    good, truth, error = (panel(figure, c, top).astype(int) for c in (1, 3, 4))
    known = (truth != UNKNOWN).any(-1)
    # Rows 6 to 63 and columns 6 to 60 of 64 are scored and known.
    assert known.mean() == pytest.approx(57 * 54 / 64**2, abs=0.02)
    assert np.abs(good - truth)[known].mean() < 8
    assert (error[known].min(-1) > 100).mean() > 0.9
    bad = panel(figure, 2, top).astype(int)
    assert np.abs(bad - truth)[known].mean() > 3 * np.abs(good - truth)[known].mean()


def test_near_is_bright(models: str, nyu: Path) -> None:
    figure = depth_figure(expand_specs([f"{models}:Reads"]), nyu, RelNyuProtocol(), ids=["room_0/rgb_00000"])
    top = first_row(figure)
    photo, shown = panel(figure, 0, top), panel(figure, 1, top)
    grey = photo[..., 0].ravel().astype(float)  # the pictures show disparity
    assert np.corrcoef(grey, shown.mean(-1).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["Rough", "Metric"])
def test_the_drawn_depth_is_the_scored_one(models: str, nyu: Path, kind: str) -> None:
    encoder = load(f"{models}:{kind}")
    protocol = RelNyuProtocol(align="depth" if kind == "Metric" else "disp")
    dataset = RelDepthTask(protocol).open(nyu)
    frame = read_frame(dataset, "room_1/rgb_00001", protocol)
    config = align_config(protocol, encoder)
    pred_HW = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) - 0.3
    score = score_relative(pred_HW, frame.depth_HW, frame.valid_HW, config=config)
    depth_HW = aligned_depth(pred_HW, score, config)
    truth_N = frame.depth_HW[frame.valid_HW].double()
    absrel = float(((depth_HW[frame.valid_HW] - truth_N).abs() / truth_N).mean())
    assert absrel == pytest.approx(next(iter(score.absrel.values())), rel=1e-12)


@pytest.mark.parametrize("size", [(3, 4), (7, 5), (12, 16), (24, 40)])
def test_block_means_ignore_what_is_unknown(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random((12, 16)) < 0.4, rng.random((12, 16)), np.nan)
    found = block_means(values, size)
    for i, j in np.ndindex(*size):
        rows, cols = (
            range(k * n // m, max((k + 1) * n // m, k * n // m + 1))
            for k, n, m in zip((i, j), values.shape, size, strict=True)
        )
        known = [values[r, c] for r in rows for c in cols if not np.isnan(values[r, c])]
        assert found[i, j] == pytest.approx(np.mean(known), nan_ok=True) if known else np.isnan(found[i, j])


def test_sparse_truth_stays_visible(models: str, tmp_path: Path) -> None:
    """A fifth of the pixels of a wide frame: more than nine tenths of the scored part of the panel are coloured."""
    data = write_kitti(tmp_path, 1)
    figure = depth_figure(expand_specs([f"{models}:Reads"]), data, RelKittiProtocol(), n=1)
    top, height = first_row(figure), round(352 * WIDTH / 1216)
    left = MARGIN + 2 * (WIDTH + GAP)
    truth = np.asarray(figure.crop((left, top, left + WIDTH, top + height)))
    rows, cols = (round(v * height / 352) for v in (120, 318)), (round(v * WIDTH / 1216) for v in (46, 1169))
    inside = truth[slice(*rows), slice(*cols)]
    assert (inside != UNKNOWN).any(-1).mean() > 0.9


def test_heads_of_depth_are_aligned_in_depth(models: str, nyu: Path) -> None:
    """The protocol's align=disp would invert them; their panel equals that of the disparity head."""
    specs = expand_specs([f"{models}:Reads", f"{models}:Metric"])
    figure = depth_figure(specs, nyu, RelNyuProtocol(), n=1)
    top = first_row(figure)
    reads, metric = (panel(figure, c, top).astype(int) for c in (1, 2))
    known = (panel(figure, 3, top) != UNKNOWN).any(-1)
    assert np.abs(reads - metric)[known].mean() < 30


def test_errors_name_what_is_wrong(models: str, nyu: Path) -> None:
    specs = expand_specs([f"{models}:Reads"])
    with pytest.raises(UsageError, match=r"did you mean .*room_0/rgb_00000"):
        depth_figure(specs, nyu, RelNyuProtocol(), ids=["room_0/rgb_0000"])
    with pytest.raises(UsageError, match="--n must be at least 1"):
        depth_figure(specs, nyu, RelNyuProtocol(), n=0)
    with pytest.raises(UsageError, match="has no depth head"):
        depth_figure(expand_specs([f"{models}:blind"]), nyu, RelNyuProtocol(), n=1)


def test_the_command_writes_a_png(cli: Cli, models: str, nyu: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures" / "f.png"
    common = ("depth-figure", "-m", f"a={models}:Reads", "--data", nyu, "--out", out, "--device", "cpu")
    answer = cli(*common, "-m", f"b={models}:Rough", "--ids", "room_1/rgb_00003", "--ids", "room_0/rgb_00002")
    assert answer.code == 0, answer.err
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert f"{image.width} x {image.height}" in answer.out
        tall = image.height
    assert cli(*common, "--n", 1, "--set", "rel_nyu.mask=none").code == 0
    with Image.open(out) as image:
        assert image.height < tall
    assert cli(*common, "-t", "nyuv3").code == 2
    assert cli(*common, "--set", "rel_nyu.mask=garg").code == 2
