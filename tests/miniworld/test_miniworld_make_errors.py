"""Making a world: refusals, errors that lose nothing, bounds of memory."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from make_helpers import SPEC, build, copy_tree, stamps, tree

from mtv import atomic
from mtv.errors import CacheError, UsageError
from mtv.miniworld import make, manifest, pool
from mtv.miniworld.compose import make_scene
from mtv.miniworld.layouts import LAYOUTS
from mtv.miniworld.layouts.scales import SCALES
from mtv.miniworld.make import default_workers, make_world
from mtv.miniworld.manifest import World
from mtv.miniworld.spec import SceneRequest, WorldSpec


@pytest.fixture
def copy(small_world: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return copy_tree(small_world, tmp_path / "copy")


def test_a_full_disk_is_one_error_and_loses_nothing(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, left = tmp_path / "full", iter(range(20))
    write = atomic._write

    def full(path: Path, data: bytes) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", full)
        with pytest.raises(CacheError, match=r"cannot write .*imagenet.*No space left on device"):
            build(out)
    assert build(out)["pretrain"].made == 0
    assert tree(out) == tree(small_world)


@pytest.mark.usefixtures("apart")
def test_an_error_in_another_process_arrives_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out/.make").mkdir(parents=True)
    # a file where the folder of the set must be: the process that writes the first picture cannot
    world = World(spec=SPEC, scale_name="tiny", scale=SCALES["tiny"], device="cpu")
    manifest.claim(tmp_path / "out", world)
    (tmp_path / "out/imagenet").write_text("in the way")
    with pytest.raises(CacheError, match=r"cannot write .*imagenet/val"):
        build(tmp_path / "out", sets=["imagenet", "kitti"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spec": lambda: WorldSpec(size=0)}, "size must be between 32 and 512"),
        ({"spec": lambda: WorldSpec(size=513)}, "size must be between 32 and 512"),
        ({"spec": lambda: WorldSpec(seed=-1)}, "seed"),
        ({"scale": "smal"}, "did you mean small"),
        ({"sets": ["imagnet"]}, "did you mean imagenet"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"device": "tpu"}, "unknown device"),
    ],
)
def test_impossible_arguments_are_named_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    given = {"spec": lambda: SPEC, "scale": "tiny", **arguments}
    with pytest.raises(UsageError, match=message):
        make_world(tmp_path / "out", given.pop("spec")(), **given)  # type: ignore[operator, arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spec", "scale", "message"),
    [
        (WorldSpec(size=48), "tiny", "size 32 instead of 48"),
        (WorldSpec(size=32, seed=5, shift=True), "tiny", "seed 0 instead of 5, shift False instead of True"),
        (SPEC, "small", "scale 'tiny' instead of 'small'"),
    ],
)
def test_a_folder_with_another_world_is_refused(copy: Path, spec: WorldSpec, scale: str, message: str) -> None:
    before = stamps(copy)
    with pytest.raises(UsageError, match=message):
        make_world(copy, spec, scale=scale, sets=["kitti"])
    assert stamps(copy) == before


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("world", "version", 0, f"version 0 instead of {manifest.VERSION}"),
        ("world", "device", "cuda", "device 'cuda' instead of 'cpu'"),
        ("scale", "kitti", 5, "kitti 5 instead of 4"),
    ],
)
def test_a_world_of_another_version_device_or_count_is_refused(
    copy: Path, part: str, field: str, value: object, message: str
) -> None:
    path = copy / ".make/world.json"
    content = json.loads(path.read_text())
    content[part][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=message):
        build(copy)


def test_folders_that_were_not_made_here_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "imagenet/val").mkdir(parents=True)
    with pytest.raises(UsageError, match="imagenet there already, but not made by make-mini"):
        build(tmp_path)
    assert list(tmp_path.rglob("*")) == [tmp_path / "imagenet", tmp_path / "imagenet/val"]


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot write to"):
        build(tmp_path / "file" / "out")


def test_two_writers_at_once_are_refused(copy: Path) -> None:
    with manifest.locked(copy), pytest.raises(CacheError, match="another process writes to"):
        build(copy)
    build(copy)


# bounds


def test_chunks_and_batches_bound_the_pictures_in_memory() -> None:
    spec = WorldSpec(size=512)
    world = World(spec=spec, scale_name="large", scale=SCALES["tiny"], device="cpu")
    for layout in LAYOUTS.values():
        requests = layout.requests(spec, world.scale)
        length = make.chunk_length(layout, requests, world)
        assert length * max(r.width * r.height for r in requests) <= make.CHUNK_PIXELS
    request = SceneRequest(split="x", index=0, purpose="several", width=682, height=512)
    batches = list(pool._batches([make_scene(spec, request)] * 24))
    assert sum(map(len, batches)) == 24
    assert max(map(len, batches)) * 682 * 512 <= pool.RENDERED_PIXELS + 682 * 512


def test_pictures_are_rendered_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mtv.miniworld.render as rendering

    alive: list[str] = []
    render = rendering.render

    def watched(*args: object, **options: object) -> Iterator[object]:
        alive.append(f"render {len(list((tmp_path / 'kitti').rglob('*.png')))}")
        return render(*args, **options)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(rendering, "render", watched)
    monkeypatch.setattr(pool, "RENDERED_PIXELS", 1)
    build(tmp_path, sets=["kitti"])
    assert alive == ["render 0", "render 2", "render 4", "render 6"]


def test_workers_default_to_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= default_workers() <= 8
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert default_workers() == 8


def test_progress_counts_every_scene_once(tmp_path: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    make_world(
        tmp_path, SPEC, scale="tiny", sets=["kitti", "mmvp"], workers=1, progress=lambda *tick: told.append(tick)
    )
    scenes = [(done, total) for stage, done, total, _ in told if stage == "scenes"]
    assert scenes == [(0, 16), (4, 16), (16, 16)]
    assert [tick for tick in told if tick[0] == "verify"] == [("verify", 1, 2, "kitti"), ("verify", 2, 2, "mmvp")]
