"""Bad pictures, changed files, NaN, pickled code: each gets its documented behaviour, and nothing is executed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from run_helpers import Answer, landed, make_job, make_runner, rows_in, stored
from run_world import noise, save, write_coco, write_imagenet

from mtv.encoders import load
from mtv.eval.features.shard import read_shard
from mtv.eval.runner import Runner

Cli = Callable[..., Answer]


@pytest.fixture
def picture_world(tmp_path: Path) -> Path:
    """ImageNet alone, for tests that spoil files."""
    write_imagenet(tmp_path / "data")
    return tmp_path / "data"


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.write_bytes(
        b"" if how == "zero-byte" else data[: len(data) // 2] if how == "truncated" else b"hello, no picture"
    )


@pytest.mark.parametrize("how", ["truncated", "zero-byte", "foreign"])
def test_unreadable_pictures_are_named(cli: Cli, tiny: str, picture_world: Path, tmp_path: Path, how: str) -> None:
    """Exit code 3, the file in the message, no result; after the repair only what is missing is computed."""
    bad = sorted(picture_world.rglob("*.JPEG"))[9]
    whole = bad.read_bytes()
    damage(bad, how)
    out = tmp_path / "out"
    args = ("run", "-m", f"{tiny}:build", "-t", "knn", "--data", picture_world, "--out", out, "--workers", 0)
    answer = cli(*args, "--batch-size", 4)
    assert answer.code == 3
    assert bad.name in answer.err
    assert "opy" in answer.err, "the message says what to do"
    ((_, record),) = stored(out).values()
    assert record.status == "failed"
    assert record.error is not None
    assert record.error["type"] == "DataError"
    assert str(picture_world) not in record.error["message"]
    before = rows_in(landed(tmp_path / "cache"))
    assert before == (9 if how == "truncated" else 0), "what came before the bad picture is kept"
    bad.write_bytes(whole)
    assert cli(*args).code == 0
    ((_, record),) = stored(out).values()
    assert (record.status, record.run["cache"]["hits"]) == ("complete", before)


def spell(image: Image.Image, kind: str, path: Path) -> Image.Image:
    """Write `image` in an unusual form; returns what a reader must see."""
    if kind == "cmyk":
        save(image.convert("CMYK"), path, format="TIFF" if path.suffix == ".tif" else "JPEG", quality=95)
        return Image.open(path).convert("RGB")
    if kind == "palette":
        small = image.quantize(32)
        save(small, path, format="PNG")
        return small.convert("RGB")
    if kind == "palette-alpha":
        small = image.quantize(32)
        save(small, path, format="PNG", transparency=3)
        return small.convert("RGB")
    if kind == "16-bit":
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        save(Image.fromarray(grey * 257), path, format="PNG")
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(image, path, format="PNG", exif=exif)
    assert Image.open(path).getexif()[0x0112] == 6
    return image


@pytest.mark.parametrize("kind", ["cmyk", "palette", "palette-alpha", "16-bit", "exif"])
def test_unusual_pictures_become_rgb_by_fixed_rules(tiny: str, picture_world: Path, tmp_path: Path, kind: str) -> None:
    """The vector of the picture is that of the same colours in a plain file; EXIF does not turn it (section 2.1)."""
    encoder = load(f"{tiny}:build")
    path = sorted(picture_world.rglob("*.JPEG"))[3]
    expected = spell(noise(3, 60, 40), kind, path)
    runner = make_runner(picture_world, None, cache=tmp_path / "cache")
    job = make_job("knn", k=3)
    runner.open([job])
    runner.run_model(encoder, [job])
    assert not runner.failures, runner.failures
    (shard,) = landed(tmp_path / "cache")
    from safetensors import safe_open

    row = read_shard(shard).ids.index(path.stem)
    with safe_open(str(shard), framework="pt") as f:
        found = f.get_slice("pooled")[row]
    wanted = encoder.features(encoder.normalize(encoder.transform()(expected)[None]), pooled=True).pooled
    assert wanted is not None
    torch.testing.assert_close(found, wanted[0], atol=1e-6, rtol=1e-6)


def test_an_unreadable_picture_of_another_task_does_not_matter(cli: Cli, tiny: str, tmp_path: Path) -> None:
    """One spoiled COCO picture: coco fails, knn is done, exit code 3."""
    write_imagenet(tmp_path / "data")
    write_coco(tmp_path / "data")
    damage(sorted((tmp_path / "data" / "coco" / "val2014").iterdir())[2], "truncated")
    args = ("-t", "coco", "-t", "knn", "--data", tmp_path / "data", "--out", tmp_path / "out", "--workers", 0)
    assert cli("run", "-m", f"{tiny}:build", *args).code == 3
    assert {t: r.status for (_, t), (_, r) in stored(tmp_path / "out").items()} == {"coco": "failed", "knn": "complete"}


def test_a_file_replaced_behind_the_cache_is_seen(tiny: str, picture_world: Path, tmp_path: Path) -> None:
    """Same size, other bytes: its row and the result are made again. Same bytes, new time: nothing is."""
    encoder, job = load(f"{tiny}:build"), make_job("knn", k=3)
    for path in picture_world.rglob("*.JPEG"):
        pad = 20_000 - path.stat().st_size
        path.write_bytes(path.read_bytes() + b"\0" * pad)

    def run() -> Runner:
        runner = make_runner(picture_world, tmp_path / "out", cache=tmp_path / "cache")
        runner.open([job])
        runner.run_model(encoder, [job])
        assert not runner.failures
        return runner

    first = run().results[0]
    victim, donor = sorted(picture_world.rglob("*.JPEG"))[1::7][:2]
    assert victim.stat().st_size == donor.stat().st_size
    shutil.copyfile(donor, victim)
    changed = run()
    assert changed.plans[0].state == "run"
    assert changed.results[0].run["cache"] == {"hits": 15, "misses": 1, "stale": 1}
    assert changed.results[0].data["content_sha256"] != first.data["content_sha256"]
    for path in picture_world.rglob("*.JPEG"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert run().plans[0].state == "done"


def test_nan_weights_are_refused(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    """From a module and from a file: the tensor is named, the exit code is 1, nothing is scored."""
    from safetensors.torch import save_file

    out = tmp_path / "out"
    args = ("-t", "knn", "--data", world, "--out", out, "--workers", 0)
    answer = cli("run", "-m", f"bad={tiny}:nan_weights", *args)
    assert answer.code == 1
    assert "'mix.bias' holds 1 values that are NaN" in answer.err
    state = load("timm:vit_tiny_patch16_224@random").module.state_dict()
    state["blocks.3.mlp.fc1.weight"][5, 7] = float("inf")
    save_file(dict(state), str(tmp_path / "w.safetensors"))
    answer = cli("run", "-m", f"file=timm:vit_tiny_patch16_224.augreg_in21k@{tmp_path / 'w.safetensors'}", *args)
    assert answer.code == 1
    assert "'blocks.3.mlp.fc1.weight' holds 1 values" in answer.err
    assert {m: r.status for (m, _), (_, r) in stored(out).items()} == {"bad": "failed", "file": "failed"}


def test_features_that_are_not_finite_name_the_picture(
    cli: Cli, tiny: str, picture_world: Path, tmp_path: Path
) -> None:
    """One black picture on which the model overflows: an error with its id, never a value; the others are kept."""
    black = sorted(picture_world.rglob("*.JPEG"))[6]
    Image.new("RGB", (40, 40)).save(black, format="JPEG")
    args = ("-t", "knn", "--data", picture_world, "--out", tmp_path / "out", "--workers", 0, "--batch-size", 1)
    answer = cli("run", "-m", f"{tiny}:infinite_on_black", *args)
    assert answer.code == 1
    assert f"'{black.stem}'" in answer.err
    assert "not finite" in answer.err
    ((_, record),) = stored(tmp_path / "out").values()
    assert record.error is not None
    assert record.error["type"] == "NumericalError"
    assert not record.metrics
    assert rows_in(landed(tmp_path / "cache")) == 6


class Bomb:
    """A pickle that writes a file when it is opened carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_with_code_is_refused_and_not_executed(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    """The other model of the run is measured."""
    marker, out = tmp_path / "marker", tmp_path / "out"
    torch.save({"state_dict": {"weight": torch.zeros(1), "extra": Bomb(marker)}}, tmp_path / "bomb.pt")
    args = ("-t", "knn", "--data", world, "--out", out, "--workers", 0)
    bomb = f"bomb=timm:vit_tiny_patch16_224@{tmp_path / 'bomb.pt'}"
    answer = cli("run", "-m", bomb, "-m", f"good={tiny}:build", *args)
    assert answer.code == 1
    assert "refused; nothing in it was executed" in answer.err
    assert not marker.exists()
    assert {m: r.status for (m, _), (_, r) in stored(out).items()} == {"bomb": "failed", "good": "complete"}
    assert cli("inspect", bomb).code == 1
    assert not marker.exists()
    # The trap works: opened carelessly, it would have gone off.
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert marker.exists()


def test_a_factory_that_fails_is_reported_with_its_reason(cli: Cli, tiny: str, world: Path, tmp_path: Path) -> None:
    args = ("-t", "knn", "--data", world, "--out", tmp_path / "out", "--workers", 0)
    answer = cli("run", "-m", f"{tiny}:broken", "-m", f"good={tiny}:build", *args)
    assert answer.code == 2
    assert "RuntimeError: no such luck" in answer.err
    assert [r.status for _, r in stored(tmp_path / "out").values()] == ["complete"]
