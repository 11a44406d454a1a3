"""Making a world: the same bytes by any road, what is whole stays, repair, resumption after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from make_helpers import SETS, build, copy_tree, damage, stamps, tree

from mtv.miniworld.spec import WorldSpec


@pytest.fixture
def copy(small_world: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return copy_tree(small_world, tmp_path / "copy")


# equal bytes


def test_two_processes_write_the_bytes_of_one(small_world: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "two", workers=2)["pretrain"].made == 2
    assert tree(tmp_path / "two") == tree(small_world)


@pytest.mark.usefixtures("apart")
def test_rendering_apart_from_writing_gives_the_same_bytes(small_world: Path, tmp_path: Path) -> None:
    build(tmp_path / "apart")
    assert tree(tmp_path / "apart") == tree(small_world)


def test_one_set_alone_is_the_same_as_among_others(small_world: Path, tmp_path: Path) -> None:
    build(tmp_path / "alone", sets=["kitti"])
    whole = {k: v for k, v in tree(small_world).items() if k.startswith("kitti/")}
    assert {k: v for k, v in tree(tmp_path / "alone").items() if k.startswith("kitti/")} == whole
    build(tmp_path / "alone")
    assert tree(tmp_path / "alone") == tree(small_world)


def test_another_seed_or_shift_gives_other_pictures_under_other_keys(small_world: Path, tmp_path: Path) -> None:
    ours = {k: v for k, v in tree(small_world).items() if k.startswith("kitti/raw")}
    for number, spec in enumerate((WorldSpec(size=32, seed=1), WorldSpec(size=32, shift=True))):
        out = tmp_path / str(number)
        build(out, sets=["kitti"], spec=spec)
        theirs = {k: v for k, v in tree(out).items() if k.startswith("kitti/raw")}
        assert theirs.keys() == ours.keys()
        assert all(theirs[k] != ours[k] for k in ours)
        keys = [json.loads((o / "kitti/manifest.json").read_bytes())["content_key"] for o in (out, small_world)]
        assert keys[0] != keys[1]


# what is whole stays, what is not is made again


def test_a_second_call_writes_nothing(copy: Path) -> None:
    before = stamps(copy)
    assert {name: m.made for name, m in build(copy).items()} == dict.fromkeys(SETS, 0)
    assert stamps(copy) == before


@pytest.mark.parametrize("harm", ["delete", "flip", "cut", "empty"])
def test_a_damaged_file_costs_its_chunk(copy: Path, small_world: Path, harm: str) -> None:
    before = stamps(copy)
    name = "imagenet/val/n90000003/mini_00000002.JPEG"
    damage(copy / name, harm)
    made = build(copy)
    assert made["imagenet"].repaired == (name.removeprefix("imagenet/"),)
    assert {k: m.made for k, m in made.items()} == {"pretrain": 0, "imagenet": 1, "kitti": 0}
    assert tree(copy) == tree(small_world)
    after = stamps(copy)
    assert all(after[k] == before[k] for k in before if not k.startswith(("imagenet", ".make/imagenet", ".make/lock")))


def test_a_damaged_shard_is_made_again_with_its_index(copy: Path, small_world: Path) -> None:
    before = stamps(copy)
    damage(copy / "pretrain/labels/depth-mini-v1/00001.tar", "flip")
    made = build(copy)["pretrain"]
    assert (made.made, made.repaired) == (1, ("labels/depth-mini-v1/00001.tar",))
    assert tree(copy) == tree(small_world)
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
def test_damaged_annotations_cost_no_picture(copy: Path, small_world: Path, name: str, harm: str) -> None:
    damage(copy / name, harm)
    assert sum(m.made for m in build(copy).values()) == 0
    assert tree(copy) == tree(small_world)


@pytest.mark.parametrize("harm", ["delete", "flip", "empty"])
def test_a_damaged_record_costs_its_chunk(copy: Path, small_world: Path, harm: str) -> None:
    damage(copy / ".make/kitti/00000.json", harm)
    assert build(copy)["kitti"].made == 1
    assert tree(copy) == tree(small_world)


# kills


def test_killed_at_any_moment_the_next_call_ends_with_the_same_bytes(small_world: Path, tmp_path: Path) -> None:
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
    assert tree(out) == tree(small_world)


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
