"""Sweeps before anything runs: the cells, the plan of a folder, jobs and the Slurm script."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mtv.atomic import atomic_write_json
from mtv.command_line import invoke
from mtv.errors import CheckpointError, UsageError
from mtv.model.config import OBJECTIVES
from mtv.train.commands_sweep import sweep
from mtv.train.sweep.manifest import FILE, claim
from mtv.train.sweep.places import places
from mtv.train.sweep.plan import Cell, Plan, make_recipes, parse_subsets
from mtv.train.sweep.slurm import script
from mtv.train.sweep.state import MEASURED, seconds_left

Make = Callable[..., Plan]


@pytest.fixture
def make(mini_world: Path) -> Make:
    """A plan over the miniature world; arguments replace its fields."""

    def made(*settings: str, recipes: tuple[str, ...] = ("nano",), tasks: str = "lattice", **fields: object) -> Plan:
        plan = Plan(
            recipes=make_recipes(recipes, settings),
            settings=settings,
            subsets=parse_subsets(tasks),
            seeds=(0,),
            data=mini_world,
            eval_data=mini_world,
            suite=("mini",),
        )
        return replace(plan, **fields)  # type: ignore[arg-type]

    return made


def test_the_lattice_is_every_subset_with_vl() -> None:
    powerset = {
        frozenset(chosen)
        for n in range(1, len(OBJECTIVES) + 1)
        for chosen in itertools.combinations(OBJECTIVES, n)
        if "vl" in chosen
    }
    found = parse_subsets("lattice")
    assert len(found) == len(powerset) == 8
    assert {frozenset(s) for s in found} == powerset
    assert [len(s) for s in found] == sorted(len(s) for s in found)
    assert (found[0], found[-1]) == (("vl",), OBJECTIVES)
    assert all(s == tuple(o for o in OBJECTIVES if o in s) for s in found)


def test_sets_are_given_in_any_order_and_wrong_ones_are_named() -> None:
    assert parse_subsets("depth, vl ;vl") == (("vl",), ("vl", "depth"))
    for text, message in (
        ("vl;ssl,vl;vl,ssl", "vl,ssl stands there twice"),
        ("vl;;ssl", "empty"),
        ("vl,sll", "sll"),
        ("", "empty"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_subsets(text)


def test_cells_are_the_product_with_one_seed_after_the_other(make: Make) -> None:
    plan = make(recipes=("nano", "mini"), seeds=(0, 1, 2))
    cells = plan.cells
    expected = set(itertools.product(("nano", "mini"), parse_subsets("lattice"), range(3)))
    assert {(c.recipe.name, c.recipe.tasks, c.recipe.seed) for c in cells} == expected
    assert len(cells) == len(expected) == 48
    assert [c.recipe.seed for c in cells] == sorted(c.recipe.seed for c in cells)
    assert len({c.recipe.hash for c in cells}) == 48
    assert len({c.recipe.study_hash for c in cells if c.recipe.name == "nano"}) == 1
    assert len({c.alias for c in cells}) == len({c.name for c in cells}) == 48
    last = cells[-1]
    assert last.name == "mini/vl+ssl+ground+depth/seed2"
    assert last.alias == "mini-vl-ssl-ground-depth-seed2"
    assert last.run(Path("d")) == Path("d/runs/mini/vl+ssl+ground+depth/seed2")


def test_axes_cannot_be_set(make: Make) -> None:
    for setting in ("tasks=vl", "seed=3"):
        with pytest.raises(UsageError, match="what a sweep varies"):
            make(setting)
    with pytest.raises(UsageError, match="nano stands there twice"):
        make(recipes=("nano", "nano"))


def test_a_plan_grows_and_is_not_contradicted(make: Make, mini_world: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    claim(out, make(tasks="vl;vl,ssl"), command="first")
    first = json.loads((out / FILE).read_text())
    assert first["tasks"] == [["vl"], ["vl", "ssl"]]
    assert first["command"] == "first"
    assert first["recipes"]["nano"] == make_recipes(["nano"], [])[0].to_dict()
    assert {"mtv", "torch", "python"} <= first["versions"].keys()

    claim(out, make(tasks="vl"), command="fewer")
    assert json.loads((out / FILE).read_text()) == first

    claim(out, make(tasks="vl;vl,depth", seeds=(0, 1), recipes=("nano", "mini")), command="more")
    grown = json.loads((out / FILE).read_text())
    assert grown["tasks"] == [["vl"], ["vl", "ssl"], ["vl", "depth"]]
    assert (grown["seeds"], list(grown["recipes"]), grown["command"]) == ([0, 1], ["nano", "mini"], "more")

    before = (out / FILE).read_bytes()
    cases = [
        (make("optim.lr=0.5"), r"nano optim.lr: 0.001 -> 0.5"),
        (make("samples=640", "heads.prototypes=32"), r"nano heads.prototypes: 64 -> 32; nano samples: 320 -> 640"),
        (make(suite=("knn",)), r"suite: \['mini'\] -> \['knn'\]"),
        (make(eval_data=tmp_path), r"eval_data: "),
    ]
    for plan, message in cases:
        with pytest.raises(UsageError, match=message):
            claim(out, plan, command="other")
    claim(out, make("log.every=3", "perf.threads=1"), command="how, not what")
    assert (out / FILE).read_bytes() != before  # the free fields and the command are those of the last plan


def test_a_moved_corpus_is_the_same_and_other_pictures_are_not(make: Make, mini_world: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    claim(out, make(tasks="vl"), command="c")
    shutil.copytree(mini_world / "pretrain", tmp_path / "moved")
    claim(out, make(tasks="vl", data=tmp_path / "moved"), command="c")
    file = tmp_path / "moved" / "dataset.json"
    index = json.loads(file.read_text())
    index["shards"][0]["content"]["images"]["tar"] = "0" * 64
    from mtv.shards.dataset import ShardEntry, content_hash

    index["index_hash"] = content_hash([ShardEntry(**s) for s in index["shards"]])
    atomic_write_json(file, index)
    with pytest.raises(UsageError, match="other pictures"):
        claim(out, make(tasks="vl", data=tmp_path / "moved"), command="c")


def test_a_damaged_plan_is_named(make: Make, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"format": 99}'):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(CheckpointError, match=FILE):
            claim(tmp_path, make(tasks="vl"), command="c")


def test_jobs_share_gpus_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7,GPU-abc")
    assert places(1, 2, None) == ({},)
    assert places(3, 1, None) == tuple({"CUDA_VISIBLE_DEVICES": g} for g in ("2", "5", "7"))
    assert places(2, 2, "cuda") == ({"CUDA_VISIBLE_DEVICES": "2,5"}, {"CUDA_VISIBLE_DEVICES": "7,GPU-abc"})
    with pytest.raises(UsageError, match=r"need 6 GPUs, there are 4\n.*--jobs 2"):
        places(3, 2, None)
    cores = os.cpu_count() or 1
    assert places(2, 1, "cpu") == ({"OMP_NUM_THREADS": str(max(1, cores // 2))},) * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert places(2, 1, None) == places(2, 1, "cpu")


def test_the_script_is_bash_and_its_tasks_are_the_cells(make: Make, mini_world: Path, tmp_path: Path) -> None:
    """The words that bash gets are those of the command, with blanks and all."""
    command = ["python", "-m", "mtv.train", "sweep", "--out", str(tmp_path / "a b"), "--tasks", "vl;vl,ssl"]
    text = script(command, cells=8, processes=4, gpus=True, logs=tmp_path / "logs")
    assert "#SBATCH --array=1-8\n" in text
    assert "#SBATCH --cpus-per-task=32\n#SBATCH --gres=gpu:4\n" in text
    assert "gres" not in script(command, cells=8, processes=4, gpus=False, logs=tmp_path / "logs")
    file = tmp_path / "job.sh"
    file.write_text(text)
    subprocess.run(["bash", "-n", str(file)], check=True)
    printing = text.replace("exec python", "exec printf '%s\\n'")
    env = {**os.environ, "SLURM_ARRAY_TASK_ID": "3"}
    shown = subprocess.run(["bash", "-c", printing], check=True, capture_output=True, text=True, env=env).stdout
    assert shown.splitlines() == [*command[1:], "--cell", "3"]


def test_slurm_and_dry_run_start_nothing(
    mini_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--recipe", "nano", "--data", str(mini_world), "--out", "s", "--seeds", "2", "--set", "samples=64"]
    assert invoke(sweep, [*words, "--dry-run"], name="sweep") == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 16
    assert listed[0].split() == ["1", "missing", "step", "0/4", "nano/vl/seed0"]
    assert not Path("s").exists()
    assert invoke(sweep, [*words, "--slurm", "job.sh", "--torchrun", "2"], name="sweep") == 0
    assert not Path("s/runs").exists()
    assert json.loads(Path("s", FILE).read_text())["seeds"] == [0, 1]
    last = Path("job.sh").read_text().splitlines()[-1]
    given = shlex.split(last)
    assert given[2:5] == ["-m", "mtv.train", "sweep"]
    assert given[given.index("--out") + 1] == str(tmp_path / "s")
    assert given[given.index("--torchrun") + 1] == "2"
    assert "--gres=gpu:2" in Path("job.sh").read_text()
    assert invoke(sweep, [*words, "--slurm", "cpu.sh", "--device", "cpu"], name="sweep") == 0
    assert "--gres" not in Path("cpu.sh").read_text()
    capsys.readouterr()
    # what the script asks for is the very plan that was written
    assert invoke(sweep, [*given[5:-2], "--dry-run", "--cell", "16"], name="sweep") == 0
    assert "nano/vl+ssl+ground+depth/seed1" in capsys.readouterr().out
    assert invoke(sweep, [*given[5:-2], "--cell", "17"], name="sweep") == 2
    assert "--cell 17: the plan has 16 runs" in capsys.readouterr().err


def test_data_without_labels_are_refused_before_the_first_run(
    mini_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--recipe", "nano", "--data", str(tmp_path), "--out", str(tmp_path / "s")]
    assert invoke(sweep, words, name="sweep") == 3
    assert "no indexed corpus" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_time_left_is_that_of_the_most_similar_runs(make: Make, tmp_path: Path) -> None:
    cells = {c.recipe.tasks: c for c in make().cells}

    def took(cell: Cell, seconds: float) -> None:
        cell.run(tmp_path).mkdir(parents=True)
        (cell.run(tmp_path) / "log.jsonl").write_text(json.dumps({"kind": "end", "step": 1, "elapsed_s": seconds - 1}))
        note = {"weights": {}, "suite": [], "results": [], "seconds": 1.0}
        atomic_write_json(cell.notes(tmp_path) / MEASURED, note)

    vl, ssl, full = cells["vl",], cells["vl", "ssl"], cells[OBJECTIVES]
    others = [c for c in cells.values() if c not in (vl, ssl)]
    assert seconds_left(others, [], tmp_path, jobs=1) is None
    took(vl, 10.0)
    took(ssl, 30.0)
    # two pairs like vl+ssl, and four larger sets at the mean of both
    assert seconds_left(others, [vl, ssl], tmp_path, jobs=1) == pytest.approx(2 * 30 + 4 * 20)
    assert seconds_left([full], [vl, ssl], tmp_path, jobs=4) == pytest.approx(20)
    assert seconds_left(others, [vl, ssl], tmp_path, jobs=2) == pytest.approx(70)
    assert seconds_left([make(recipes=("mini",)).cells[0]], [vl, ssl], tmp_path, jobs=1) is None
