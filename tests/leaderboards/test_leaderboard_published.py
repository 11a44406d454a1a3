"""Published values equal the paper and the protocol pages, cell by cell."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mtv.leaderboards.published import published

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
    "imagenet/top1",
    "coco/t2i_r1",
    "coco/i2t_r1",
    "vqa/score",
    "ade20k/miou",
    "navi/avg_recall",
    "spair/avg_recall",
    "nyuv2/rmse",
)


@pytest.fixture(scope="session")
def paper() -> list[str]:
    path = Path(os.environ.get("MTV_PAPER", ROOT.parent / "shared" / "paper.md"))
    if not path.is_file():
        pytest.skip(f"the paper's text is not at {path}; set MTV_PAPER to run this test")
    return path.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def pages() -> Path:
    path = ROOT.parent / "shared" / "protocols"
    if not path.is_dir():
        pytest.skip(f"the protocol pages are not at {path}")
    return path


def cells_of(paper: list[str], caption: str) -> list[list[str]]:
    start = next(k for k, text in enumerate(paper) if text.startswith(caption))
    body = paper[start + 2 : next(k for k in range(start + 2, len(paper)) if not paper[k].strip())]
    return [[re.sub(r"</?b>|\[\d+\]", "", c).strip() for c in text.split("\t")] for text in body]


def printed(table: str) -> dict[tuple[str, str], str]:
    return {(v.model, v.metric): v.printed for v in published() if v.table == table}


def test_table_5_equals_the_paper(paper: list[str]) -> None:
    ours = printed("table5")
    seen = set()
    vit = ""
    for row in cells_of(paper, "Table 5."):
        if len(row) < 11 or row[0] == "ViT" or not row[1]:
            continue
        vit = row[0] or vit
        # The paper prints SigLIP L under L/14; the public model is L/16.
        model = {"SigLIP L/14": "SigLIP L/16"}.get(f"{row[1]} {vit}", f"{row[1]} {vit}")
        model += " 100M" if row[1] == "MTV" else ""
        for metric, value in zip(COLUMNS, row[3:], strict=True):
            assert ours[model, metric] == value, (model, metric)
            seen.add((model, metric))
    assert seen == set(ours)
    assert len(seen) == 64


def test_table_3_equals_the_paper_and_its_increments_add_up(paper: list[str]) -> None:
    ours = printed("table3")
    seen = set()
    vit = data = ""
    last: list[float] = []
    for row in cells_of(paper, "Table 3."):
        if len(row) < 11 or not row[2].startswith("VL"):
            continue
        vit, data = row[0] or vit, row[1] or data
        values = [re.match(r"\S+", c) for c in row[3:]]
        for metric, value in zip(COLUMNS, values, strict=True):
            assert value is not None
            assert ours[f"{row[2]} {vit} {data}", metric] == value.group(), (row[2], vit, data, metric)
            seen.add((f"{row[2]} {vit} {data}", metric))
        # An independent check of the transcription: the increments that the paper prints beside the values.
        numbers = [float(v.group()) for v in values if v is not None]
        for now, before, text in zip(numbers, last, row[3:], strict=False):
            if row[2] != "VL" and (step := re.search(r"\(([+-]\.?\d[\d.]*)\)", text)):
                assert now - before == pytest.approx(float(step.group(1)), abs=0.051), (row[2], vit, data, text)
        last = numbers
    assert seen == set(ours)
    assert len(seen) == 128


def test_table_6_equals_the_paper(paper: list[str]) -> None:
    ours = printed("table6")
    names = {"MTV-B": "MTV B/16 100M", "MTV-L": "MTV L/16 100M"}
    rows = [r for r in cells_of(paper, "Table 6.") if len(r) == 4 and r[0] != "Model"]
    for model, _, kitti, nyu in rows:
        assert ours[names.get(model, model), "rel_kitti/absrel_depth"] == kitti
        assert ours[names.get(model, model), "rel_nyu/absrel_depth"] == nyu
    assert len(ours) == 2 * len(rows) == 16


def test_reference_values_equal_the_zero_shot_page(pages: Path) -> None:
    """Section 7: every number in its table is in our file, and every number in our file is in its table."""
    text = (pages / "zero_shot_and_retrieval.md").read_text(encoding="utf-8")
    section = text.split("## 7. Reference values")[1].split("\n## 8.")[0]
    body = [line for line in section.splitlines() if line.startswith("|")][2:]
    theirs = [n for line in body for n in re.findall(r"(?<![\w./-])\d\d\.\d{1,2}(?!\d)", line)]
    ours = [v.printed for v in published() if v.table == "zero_shot"]
    assert sorted(theirs) == sorted(ours)
    assert len(ours) == 71


def test_reference_values_are_under_the_right_name() -> None:
    ours = {(v.model, v.metric, v.source): v.printed for v in published() if v.table == "zero_shot"}
    assert ours["CLIP B/16", "imagenet/top1", "open_clip"] == "68.34"
    assert ours["CLIP B/16", "coco/t2i_r1", "open_clip"] == "33.09"
    assert ours["CLIP B/16", "coco/i2t_r1", "open_clip"] == "52.42"
    assert ours["SigLIP L/16-256", "flickr30k/t2i_r1", "open_clip"] == "79.04"
    assert ours["SigLIP2 B/16-224", "flickr30k/i2t_r1", "big_vision"] == "93.0"
    assert ours["CLIP L/14-336", "coco/i2t_r1", "OpenAI"] == "58.4"


def test_rounded_to_the_paper_the_clip_rows_are_the_open_clip_rows() -> None:
    """Provenance stated on the zero-shot page: equal to the printed digit."""
    ours = {(v.model, v.metric, v.source): v.value for v in published()}
    for model in ("CLIP B/16", "CLIP L/14"):
        for metric in COLUMNS[:3]:
            assert abs(ours[model, metric, "MTV paper, Table 5"] - ours[model, metric, "open_clip"]) <= 0.0501


def test_omniprobe_means_follow_from_its_parts() -> None:
    ours = printed("omniprobe_navi")
    models = {m for m, _ in ours}
    assert len(models) == 5
    assert len(ours) == 45
    for m in models:
        recalls = [float(ours[m, f"navi/recall_{d}cm"]) for d in (1, 2, 5)]
        bins = [float(ours[m, f"navi/recall_2cm_{b}"]) for b in ("0_30", "30_60", "60_90", "90_120")]
        assert sum(recalls) / 3 == pytest.approx(float(ours[m, "navi/avg_recall"]), abs=0.006)
        assert sum(bins) / 4 == pytest.approx(float(ours[m, "navi/avg_recall_bins"]), abs=0.006)


def test_omniprobe_equals_the_correspondence_page(pages: Path) -> None:
    text = (pages / "correspondence.md").read_text(encoding="utf-8")
    section = text.split("Anchors from the same source:")[1].split("Acceptance:")[0]
    theirs = re.findall(r"\d+\.\d\d", section)
    assert sorted(theirs) == sorted(v.printed for v in published() if v.table == "omniprobe_navi")


def test_every_alias_exists_and_every_value_names_its_source() -> None:
    from mtv.encoders.aliases import ALIASES

    for v in published():
        assert not v.alias or v.alias in ALIASES, v
        assert v.source, v
        assert v.reference, v
        assert v.unit == ("m" if v.metric == "nyuv2/rmse" else "percent"), v
