"""Making a world: the same bytes by any road, resumption after a kill, repair, refusal, errors that lose nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mtv import atomic
from mtv.errors import CacheError, UsageError
from mtv.miniworld import make, manifest, pool
from mtv.miniworld.compose import make_scene
from mtv.miniworld.layouts import LAYOUTS
from mtv.miniworld.layouts.scales import SCALES
from mtv.miniworld.make import MadeSet, default_workers, make_world
from mtv.miniworld.manifest import World
from mtv.miniworld.pool import ChunkJob
from mtv.miniworld.spec import SceneRequest, WorldSpec

SPEC = WorldSpec(size=32)
SETS = ["pretrain", "imagenet", "kitti"]


def build(out: Path, *, sets: list[str] | None = None, spec: WorldSpec = SPEC, workers: int = 1) -> dict[str, MadeSet]:
    made = make_world(out, spec, scale="tiny", sets=sets or SETS, workers=workers)
    return {m.name: m for m in made}


def tree(out: Path) -> dict[str, str]:
    """Every file but the lock to the hash of its bytes."""
    files = (p for p in out.rglob("*") if p.is_file() and p.name != "lock")
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Every file to its inode and time: both stay when nobody writes it."""
    return {
        p.relative_to(out).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world made by one process; read only."""
    out = tmp_path_factory.mktemp("made") / "reference"
    build(out)
    return out


@pytest.fixture
def copy(reference: Path, tmp_path: Path) -> Path:
    """A copy of the reference to damage."""
    out = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(reference), str(out)], check=True)
    return out


# equal bytes


def test_two_processes_write_the_bytes_of_one(reference: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "two", workers=2)["pretrain"].made == 2
    assert tree(tmp_path / "two") == tree(reference)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The road of the GPU, taken with the CPU as its device: other processes compose and write."""

    def run(jobs: Sequence[ChunkJob], *, workers: int) -> Iterator[ChunkJob]:
        return pool._on_device(jobs, workers, "cpu")

    monkeypatch.setattr(make, "run_jobs", run)


@pytest.mark.usefixtures("apart")
def test_rendering_apart_from_writing_gives_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    build(tmp_path / "apart")
    assert tree(tmp_path / "apart") == tree(reference)


def test_one_set_alone_is_the_same_as_among_others(reference: Path, tmp_path: Path) -> None:
    build(tmp_path / "alone", sets=["kitti"])
    whole = {k: v for k, v in tree(reference).items() if k.startswith("kitti/")}
    assert {k: v for k, v in tree(tmp_path / "alone").items() if k.startswith("kitti/")} == whole
    build(tmp_path / "alone")
    assert tree(tmp_path / "alone") == tree(reference)


def test_another_seed_or_shift_gives_other_pictures_under_other_keys(reference: Path, tmp_path: Path) -> None:
    ours = {k: v for k, v in tree(reference).items() if k.startswith("kitti/raw")}
    for number, spec in enumerate((WorldSpec(size=32, seed=1), WorldSpec(size=32, shift=True))):
        out = tmp_path / str(number)
        build(out, sets=["kitti"], spec=spec)
        theirs = {k: v for k, v in tree(out).items() if k.startswith("kitti/raw")}
        assert theirs.keys() == ours.keys()
        assert all(theirs[k] != ours[k] for k in ours)
        keys = [json.loads((o / "kitti/manifest.json").read_bytes())["content_key"] for o in (out, reference)]
        assert keys[0] != keys[1]


# what is whole stays, what is not is made again


def test_a_second_call_writes_nothing(copy: Path) -> None:
    before = stamps(copy)
    assert {name: m.made for name, m in build(copy).items()} == dict.fromkeys(SETS, 0)
    assert stamps(copy) == before


@pytest.mark.parametrize("harm", ["delete", "flip", "cut", "empty"])
def test_a_damaged_file_costs_its_chunk(copy: Path, reference: Path, harm: str) -> None:
    before = stamps(copy)
    name = "imagenet/val/n90000003/mini_00000002.JPEG"
    _harm(copy / name, harm)
    made = build(copy)
    assert made["imagenet"].repaired == (name.removeprefix("imagenet/"),)
    assert {k: m.made for k, m in made.items()} == {"pretrain": 0, "imagenet": 1, "kitti": 0}
    assert tree(copy) == tree(reference)
    after = stamps(copy)
    assert all(after[k] == before[k] for k in before if not k.startswith(("imagenet", ".make/imagenet", ".make/lock")))


def test_a_damaged_shard_is_made_again_with_its_index(copy: Path, reference: Path) -> None:
    before = stamps(copy)
    _harm(copy / "pretrain/labels/depth-mini-v1/00001.tar", "flip")
    made = build(copy)["pretrain"]
    assert (made.made, made.repaired) == (1, ("labels/depth-mini-v1/00001.tar",))
    assert tree(copy) == tree(reference)
    assert stamps(copy)["pretrain/images/00000.tar"] == before["pretrain/images/00000.tar"]


@pytest.mark.parametrize(
    "name",
    [
        "imagenet/classnames.txt",
        "imagenet/manifest.json",
        "imagenet/README.md",
        "pretrain/dataset.json",
        "pretrain/index/00000.idx",
        ".make/imagenet/finish.json",
        "manifest.json",
        "README.md",
    ],
)
@pytest.mark.parametrize("harm", ["delete", "flip"])
def test_damaged_annotations_cost_no_picture(copy: Path, reference: Path, name: str, harm: str) -> None:
    _harm(copy / name, harm)
    assert sum(m.made for m in build(copy).values()) == 0
    assert tree(copy) == tree(reference)


@pytest.mark.parametrize("harm", ["delete", "flip", "empty"])
def test_a_damaged_record_costs_its_chunk(copy: Path, reference: Path, harm: str) -> None:
    _harm(copy / ".make/kitti/00000.json", harm)
    assert build(copy)["kitti"].made == 1
    assert tree(copy) == tree(reference)


def _harm(path: Path, harm: str) -> None:
    data = path.read_bytes()
    path.unlink()
    if harm == "flip":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif harm in ("cut", "empty"):
        path.write_bytes(data[: len(data) // 2 if harm == "cut" else 0])


# kills


def test_killed_at_any_moment_the_next_call_ends_with_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    moments: list[Callable[[], bool]] = [
        lambda: len(list(out.glob("pretrain/images/.*"))) > 0,
        lambda: len(list(out.glob("imagenet/val/*/*.JPEG"))) > 3,
    ]
    for moment in moments:
        _kill_when(moment, out)
        assert not (out / "manifest.json").exists()
    # what a killed writer may leave at worst
    (out / "imagenet").mkdir(exist_ok=True)
    (out / "imagenet/.x.JPEG.abc.tmp").write_bytes(b"half")
    made = build(out)
    assert made["pretrain"].made < 2
    assert tree(out) == tree(reference)


def _kill_when(moment: Callable[[], bool], out: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from mtv.miniworld.make import make_world\n"
        "from mtv.miniworld.spec import WorldSpec\n"
        f"make_world(Path({str(out)!r}), WorldSpec(size=32), scale='tiny', sets={SETS}, workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 120
        while not moment():
            assert process.poll() is None, "ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from mtv.miniworld.pool import _pool, _start_plain\n"
        "if __name__ == '__main__':\n"
        "    with _pool(2, _start_plain) as workers:\n"
        "        print(*{f.result() for f in [workers.submit(os.getpid) for _ in range(20)]}, flush=True)\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert children
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while any(_alive(pid) for pid in children):
            assert time.monotonic() < deadline, "a worker outlived its parent"
            time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


# errors


def test_a_full_disk_is_one_error_and_loses_nothing(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert tree(out) == tree(reference)


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


def test_a_newer_generator_refuses_an_older_world(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy / ".make/world.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 0}))
    with pytest.raises(UsageError, match=f"version 0 instead of {manifest.VERSION}"):
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
    assert 1 <= default_workers() <= min(8, multiprocessing.cpu_count())
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert default_workers() == 8


def test_progress_counts_every_scene_once(tmp_path: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    make_world(
        tmp_path, SPEC, scale="tiny", sets=["kitti", "mmvp"], workers=1, progress=lambda *tick: told.append(tick)
    )
    scenes = [(done, total) for stage, done, total, _ in told if stage == "scenes"]
    assert scenes == [(4, 13), (13, 13)]
    assert [tick for tick in told if tick[0] == "verify"] == [("verify", 1, 2, "kitti"), ("verify", 2, 2, "mmvp")]
