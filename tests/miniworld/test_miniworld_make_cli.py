"""`mtv-eval data make-mini`, `data show` and `data check` on a made world, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtv.eval.cli import invoke
from mtv.eval.commands.data_mini import make_mini
from mtv.eval.contact_rows import rows_below, spread
from mtv.eval.contact_sheet import GAP, MARGIN, Panel, Row, compose
from mtv.miniworld.layouts import LAYOUTS
from mtv.miniworld.layouts.scales import SCALES

TINY = ("data", "make-mini", "--size", "32", "--scale", "tiny", "--workers", "1", "--quiet")


@pytest.fixture
def copy(mini_world: Path, tmp_path: Path) -> Path:
    """A copy of the world to damage."""
    out = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(mini_world), str(out)], check=True)
    return out


def test_make_mini_tells_what_it_made_and_then_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*TINY, "--out", str(tmp_path / "w"), "--sets", "kitti, imagenet"]
    assert invoke([*args, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["set"], r["made"]) for r in rows] == [("imagenet", 1), ("kitti", 1)]
    assert rows[0]["counts"] == {"images": 32, "classes": 16}
    assert invoke(args) == 0
    out = capsys.readouterr().out
    assert "32 images, 16 classes" in out
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["imagenet", "1", "0", "0"],
        ["kitti", "1", "0", "0"],
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--size", "0"), "size must be between 32 and 512 pixels, got 0"),
        (("--scale", "huge"), "unknown scale 'huge'; known: large, medium, small, tiny"),
        (("--sets", "imagenet,cocoa"), "unknown set 'cocoa'; did you mean coco?"),
        (("--device", "gpu"), "unknown device 'gpu'"),
        (("--workers", "0"), "workers must be at least 1, got 0"),
        (("--seed", "-1"), "seed must not be negative"),
    ],
)
def test_impossible_options_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    assert invoke([*TINY, "--out", str(tmp_path / "w"), *args]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "w").exists()


def test_help_names_every_scale_and_imports_no_torch() -> None:
    (option,) = (p for p in make_mini.params if p.name == "scale")
    assert all(f"{name}" in option.help for name in SCALES)  # type: ignore[attr-defined]
    code = (
        "import sys\n"
        "from mtv.eval.cli import invoke\n"
        "assert invoke(['data', 'make-mini', '--help']) == 0\n"
        "assert invoke(['data', 'show', '--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "make-mini" in done.stdout


def test_data_check_accepts_the_world(mini_world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["data", "check", "--data", str(mini_world), "--json"]) == 0
    reports = {r["name"]: r for r in json.loads(capsys.readouterr().out)}
    assert {n for n, r in reports.items() if r["verdict"] == "ok-but"} == set(LAYOUTS)
    assert {r["verdict"] for r in reports.values()} == {"ok-but", "missing"}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("imagenet", "imagenet/val/n90000002/mini_00000001.JPEG"),
        ("navi", "navi/mug_000/wild_set/masks/000.png"),
        ("spair", "spair/Layout/small/test.txt"),
        ("ade20k", "ade20k/ADEChallengeData2016/annotations/training/ADE_train_00000001.png"),
    ],
)
def test_data_check_finds_what_is_gone_or_altered_and_make_mini_repairs_it(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, file: str
) -> None:
    check = ["data", "check", name, "--data", str(copy), "--cache", str(tmp_path / "cache")]
    data = (copy / file).read_bytes()
    (copy / file).unlink()
    assert invoke(check) == 3
    out = capsys.readouterr().out
    assert f"{file.partition('/')[2]}: missing, but in manifest.json" in out
    assert "make-mini" in out
    middle = len(data) // 2
    (copy / file).write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert invoke([*check, "--full", "--workers", "1"]) == 3
    assert "its bytes are not those in manifest.json" in capsys.readouterr().out
    again = ["data", "make-mini", "--out", str(copy), "--size", "48", "--scale", "tiny", "--workers", "1", "--quiet"]
    assert invoke([*again, "--sets", name, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["repaired"] == 1
    assert (copy / file).read_bytes() == data
    assert invoke([*check, "--full", "--workers", "1"]) == 0


def test_show_draws_every_set(mini_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheets" / "sheet.png"
    assert invoke(["data", "show", str(mini_world), "--out", str(sheet), "--items", "4", "--width", "1200"]) == 0
    assert set(capsys.readouterr().out.split(": ", 1)[1].strip().split(", ")) == set(LAYOUTS)
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 1200
    assert pixels.shape[0] > 2000
    assert 0.2 < (pixels != 255).any(axis=2).mean() < 0.9
    for row in rows_below(mini_world, names=None, items=4):
        assert len(row.panels) >= 3
        assert all(np.asarray(p.image).std() > 2 for p in row.panels)


def test_show_draws_truth_over_the_pictures(mini_world: Path) -> None:
    rows = {row.title: row for row in rows_below(mini_world, names=None, items=4)}
    with Image.open(next((mini_world / "spair/JPEGImages/mug").iterdir())) as image:
        assert image.height in (96, 128)
    # pictures are enlarged, and dots, boxes, tints add pure colours that no rendered picture of this world has
    white = [(np.asarray(p.image) == 255).all(axis=2).sum() for p in rows["spair"].panels]
    assert min(white) > 20
    assert rows["coco"].panels[0].text
    assert rows["imagenet"].panels[0].text == "mug"
    assert "[" in rows["mmvp"].panels[0].text


def test_show_errors(mini_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["data", "show", str(mini_world), "--out", str(tmp_path / "sheet.pdf")]) == 2
    assert "ends in .png or .jpg" in capsys.readouterr().err
    assert invoke(["data", "show", str(mini_world), "--out", str(tmp_path / "s.png"), "--sets", "coca"]) == 2
    (tmp_path / "nothing").mkdir()
    assert invoke(["data", "show", str(tmp_path / "nothing"), "--out", str(tmp_path / "s.png")]) == 3
    assert "no data set found" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))


def test_sheet_wraps_rows_and_texts() -> None:
    picture = Image.new("RGB", (300, 100), "navy")
    row = Row(title="set", remark="three", panels=[Panel(image=picture, text="a word " * 30)] * 3)
    narrow, wide = compose([row], width=300 + 2 * MARGIN), compose([row], width=900 + 2 * (MARGIN + GAP))
    assert narrow.height > 2.5 * wide.height - 100
    navy = [int((np.asarray(s) == (0, 0, 128)).all(axis=2).sum()) for s in (narrow, wide)]
    assert navy == [3 * 300 * 100] * 2
    assert spread([1, 2], 5) == [1, 2]
