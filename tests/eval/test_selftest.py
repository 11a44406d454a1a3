"""The selftest passes on this tree, and each of its layers fails when the thing it watches is broken on purpose."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtv.encoders.build
import mtv.encoders.cleaning
import mtv.eval.features.api
import mtv.eval.store
import mtv.eval.tasks.geometric
import mtv.eval.tasks.retrieval
import mtv.probes.classification
import mtv.probes.knn
import mtv.probes.matching
import mtv.probes.semantic
import mtv.stats
from mtv.encoders.base import Encoder
from mtv.eval.features.content import ContentIndex
from mtv.eval.runner import Runner
from mtv.eval.selftest.checks import LAYERS, Check, Outcome, agree, differing, run_checks, show
from mtv.eval.selftest.command import LAYER_CHECKS, run_layers, text_report
from mtv.eval.selftest.session import TASKS, Session
from mtv.eval.selftest.table import failures, table
from mtv.eval.task import TASKS as EVERY_TASK
from mtv.probes.ties import TieRanks, count_true


def test_selftest_passes_and_covers_every_task(tmp_path: Path) -> None:
    """Once as a user runs it: exit code, JSON on stdout alone, all layers, all tasks, within a minute."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "mtv.eval", "selftest", "--json"], capture_output=True, text=True, env=env, timeout=600
    )
    report = json.loads(done.stdout)
    broken = [c for c in report["checks"] if not c["passed"]]
    assert not broken, "\n".join(f"{c['layer']} {c['name']}: {c['measured']}" for c in broken)
    assert done.returncode == 0
    assert report["failed"] == 0
    assert report["passed"] == len(report["checks"]) >= 80
    assert [*dict.fromkeys(c["layer"] for c in report["checks"])] == list(LAYERS)
    hand = " ".join(c["name"] for c in report["checks"] if c["layer"] == "hand")
    assert all(task in hand for task in EVERY_TASK)
    assert report["versions"]["torch"] == torch.__version__.split("+")[0]
    assert list(tmp_path.glob("mtv-selftest-*")) == []  # it cleans up
    assert "[1/" in done.stderr  # progress


def test_every_task_has_hand_answers() -> None:
    trained = {"nyuv2", "ade20k", "camvid", "nyu40", "rel_nyu", "rel_kitti"}  # their probes have, see hand_dense
    assert set(TASKS) == set(EVERY_TASK) - trained
    assert set(LAYER_CHECKS) == set(LAYERS)


def _flipped_ties(scores_QK: torch.Tensor, target_Q: torch.Tensor) -> TieRanks:
    """The higher index wins."""
    own_Q1 = scores_QK.gather(1, target_Q[:, None])
    equal_QK, columns_K = scores_QK == own_Q1, torch.arange(scores_QK.shape[1])
    won_Q = 1 + count_true(scores_QK > own_Q1)
    lost_Q = won_Q + count_true(equal_QK) - 1
    return TieRanks(won_Q + count_true(equal_QK & (columns_K > target_Q[:, None])), lost_Q, won_Q)


def _swapped_directions(real: Callable[..., Any]) -> Callable[..., Any]:
    def swapped(*args: Any) -> dict[str, np.ndarray]:
        table = real(*args)
        return {**table, "part": np.where(table["part"] == "t2i", "i2t", "t2i")}

    return swapped


def _imagenet_statistics_always(real: Callable[..., Any]) -> Callable[..., Any]:
    def normalize(self: Encoder, pixels: torch.Tensor, record: Any = None) -> torch.Tensor:
        fixed = self.info.image.with_(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        return real(self, pixels, fixed)  # type: ignore[no-any-return]

    return normalize


def _ids_as_digests(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, files, **options: {i: f"{i:0<64}" for i in files}


def _swallowing(real: Callable[..., Any]) -> Callable[..., Any]:
    def finish(*args: Any) -> None:
        with contextlib.suppress(BaseException):
            real(*args)

    return finish


def _mixed_up(real: Callable[..., Any]) -> Callable[..., Any]:
    def rows(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        moved = [*list(found.places.values())[1:], next(iter(found.places.values()))]
        return replace(found, places=dict(zip(found.places, moved, strict=True)))

    return rows


def _ninety_percent(values: Any) -> tuple[float, float]:
    return float(np.percentile(values, 5)), float(np.percentile(values, 95))


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    """One function replaced by a wrong one."""

    owner: Any
    """Module or class that holds it."""
    name: str
    """Attribute."""
    broken: Callable[[Any], Any]
    """The intact function to the wrong one."""
    layer: str
    """Layer of the check that must fail."""
    words: str
    """Part of its name."""
    tasks: tuple[str, ...] = ()
    """Tasks whose main run the check reads."""
    intact_first: bool = True
    """Whether to see it pass on the intact code here; not where that takes seconds, as the full run sees it too."""


SABOTAGE = {
    "ties go to the higher index": Sabotage(
        owner=mtv.probes.classification,
        name="target_ranks",
        broken=lambda real: _flipped_ties,
        layer="oracle",
        words="class ranks",
    ),
    "ties go to the higher index, through the pipeline": Sabotage(
        owner=mtv.probes.classification,
        name="target_ranks",
        broken=lambda real: _flipped_ties,
        layer="hand",
        words="(Z3)",
    ),
    "directions swapped": Sabotage(
        owner=mtv.eval.tasks.retrieval,
        name="_table",
        broken=_swapped_directions,
        layer="hand",
        words="coco: t2i_r1 i2t_r1",
        tasks=("coco",),
    ),
    "poses swapped": Sabotage(
        owner=mtv.eval.tasks.geometric,
        name="relative_pose",
        broken=lambda real: lambda a, b: real(b, a),
        layer="hand",
        words="sevenscenes, step",
        tasks=("sevenscenes",),
    ),
    "columns and rows swapped": Sabotage(
        owner=mtv.probes.semantic,
        name="best_cells",
        broken=lambda real: lambda *args: real(*args)[:, ::-1],
        layer="hand",
        words="spair: vp",
        tasks=("spair",),
    ),
    "similarity in place of uniqueness": Sabotage(
        owner=mtv.probes.matching,
        name="uniqueness",
        broken=lambda real: lambda first, second: first.double(),
        layer="oracle",
        words="ratio",
    ),
    "half the neighbours": Sabotage(
        owner=mtv.probes.knn,
        name="top_k",
        broken=lambda real: lambda scores, k: real(scores, k // 2),
        layer="oracle",
        words="kNN",
    ),
    "90 % intervals": Sabotage(
        owner=mtv.stats,
        name="_percentiles",
        broken=lambda real: _ninety_percent,
        layer="oracle",
        words="bootstrap",
    ),
    "statistics of the record ignored": Sabotage(
        owner=Encoder,
        name="normalize",
        broken=_imagenet_statistics_always,
        layer="sensitivity",
        words="wrong mean",
    ),
    "weights not in the fingerprint": Sabotage(
        owner=mtv.encoders.build,
        name="weights_sha256",
        broken=lambda real: lambda module: "0" * 64,
        layer="sensitivity",
        words="weights of one",
    ),
    "file contents not looked at": Sabotage(
        owner=ContentIndex,
        name="digests",
        broken=_ids_as_digests,
        layer="sensitivity",
        words="replaced in place",
    ),
    "a record counts without its samples": Sabotage(
        owner=mtv.eval.store,
        name="is_whole",
        broken=lambda real: lambda *args, **options: True,
        layer="crash",
        words="sample table is gone",
    ),
    "the end of the process is survived": Sabotage(
        owner=Runner,
        name="_finish",
        broken=_swallowing,
        layer="crash",
        words="kill",
        intact_first=False,
    ),
    "rows in memory mixed up": Sabotage(
        owner=mtv.eval.features.api,
        name="memory_rows",
        broken=_mixed_up,
        layer="invariance",
        words="no cache: flickr30k",
        tasks=("flickr30k",),
    ),
    "case kept": Sabotage(
        owner=mtv.encoders.cleaning,
        name="_lower",
        broken=lambda real: lambda text: " ".join(text.split()),
        layer="adapter",
        words="canonicalize (Z2)",
    ),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_broken_pipeline_fails_its_check(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check passes on the intact code and fails on the broken one, without an exception of its own making."""
    case = SABOTAGE[what]

    def outcome() -> Outcome:
        with Session(tasks=case.tasks) as session:
            (found,) = run_layers(session, layers=[case.layer], only=lambda c: case.words in c.name)
        return found

    if case.intact_first:
        before = outcome()
        assert before.passed, before
    monkeypatch.setattr(case.owner, case.name, case.broken(getattr(case.owner, case.name)))
    after = outcome()
    assert not after.passed, after


def _outcome(**changes: Any) -> Outcome:
    usual = Outcome(layer="hand", name="n", expected="1", measured="1", passed=True, seconds=0.5)
    return replace(usual, **changes)


def test_a_failing_check_does_not_stop_the_others() -> None:
    def boom() -> int:
        raise ValueError("first line\nsecond line")

    checks = [
        Check(layer="hand", name="breaks", expected=1, measure=boom),
        Check(layer="hand", name="differs", expected=(1.0, None), measure=lambda: (1.1, None)),
        Check(layer="hand", name="agrees", expected=(1.0, None), measure=lambda: (1.0 + 1e-9, None)),
        Check(layer="hand", name="must differ", expected="not 1", measure=lambda: 1, agrees=lambda m: m != 1),
    ]
    seen: list[str] = []
    found = run_checks(checks, lambda c: seen.append(c.name))
    assert [o.passed for o in found] == [False, False, True, False]
    assert found[0].measured == "ValueError: first line"
    assert "second line" in found[0].traceback
    assert seen == ["breaks", "differs", "agrees", "must differ"]


@pytest.mark.parametrize(
    ("expected", "measured", "same"),
    [
        (75.0, 75.0 + 5e-5, True),
        (75.0, 75.01, False),
        (1, True, False),
        (None, 0.0, False),
        (None, None, True),
        ((1, 2), [1, 2], True),
        ((1, 2), (1, 2, 3), False),
        ("a", "a", True),
        (1.0, float("nan"), False),
    ],
)
def test_agree(expected: Any, measured: Any, same: bool) -> None:
    assert agree(expected, measured) is same


def test_show_and_differing() -> None:
    assert show((200 / 3, 2, None, 0.0, 2**0.5 / 100, "x", True)) == "66.67 2 none 0 0.01414 x True"
    assert differing([1, 2, 3], [1, 5, 3]) == "1 of 3 differ"
    assert differing([1, 2, 3], [1]) == "1 values instead of 3"


def test_table_fits_narrow_terminals_and_groups_equal_failures() -> None:
    long = "e" * 90
    outcomes = [
        _outcome(),
        _outcome(name="first", measured=long, passed=False, traceback="t"),
        _outcome(name="second", measured=long, passed=False, traceback="t"),
    ]
    assert max(len(line) for line in table(outcomes, 100)) <= 100
    assert max(len(line) for line in table(outcomes, 1000)) > 60
    shown = "\n".join(failures(outcomes))
    assert shown.count(long) == 1
    assert "FAIL hand: first\nFAIL hand: second" in shown
    report = text_report(outcomes, 1.25)
    assert report.splitlines()[-1] == "1 checks passed, 2 failed in 1.2 s"
    assert "\x1b" not in report
