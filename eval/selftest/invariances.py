"""Invariances: what must not move any outcome. Compared are the integers of the sample tables, row by row."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from mtv.encoders.checkpoint import load_strict, read_state_dict
from mtv.eval.datasets.registry import check_dataset
from mtv.eval.features.options import ExtractOptions
from mtv.eval.jobs import Job
from mtv.eval.protocols import protocol_for
from mtv.eval.runner import Runner, RunOptions
from mtv.eval.selftest import worlds_text
from mtv.eval.selftest.checks import Check, differing
from mtv.eval.selftest.planted import PlantedTowers, planted_encoder
from mtv.eval.selftest.session import TASKS, Ran, Session, rows
from mtv.probes.classification import rank_classes
from mtv.probes.retrieval import rank_retrieval

if TYPE_CHECKING:
    from mtv.encoders.base import Encoder

COLUMNS = {
    "imagenet": ("sample_id", "label", "predicted", "rank", "rank_lo", "rank_hi"),
    "flickr30k": ("sample_id", "part", "rank", "rank_lo", "rank_hi"),
    "spair": ("sample_id", "predicted_x", "predicted_y", "hit_0.10"),
    "sevenscenes": ("sample_id", "n", "hits_2cm", "hits_5cm", "hits_10cm", "hits_5px"),
}
"""What is compared per task; spair and sevenscenes read token maps, imagenet and flickr30k pooled vectors and text."""


def checks(session: Session) -> list[Check]:
    """Batch, workers, cache, shards, file format, order of files, order of samples, blocks, scale."""
    return [
        *_pipeline(session),
        Check(
            layer="invariance",
            name="fingerprint of .pt and .safetensors",
            expected="same",
            measure=lambda: _same(*_fingerprints()),
        ),
        Check(
            layer="invariance",
            name="order in which files were written: data fingerprint",
            expected="same",
            measure=lambda: _same(*_order_of_files()),
        ),
        _check("sample order: ranks of 60 images", _permuted_images),
        _check("block size 1, 7, 64: retrieval ranks", _blocks),
        _check("positive factors on features: ranks", _factors),
    ]


def _check(name: str, measure: Callable[[], str]) -> Check:
    return Check(layer="invariance", name=name, expected="0 differ", measure=measure, agrees=lambda m: m[:5] == "0 of ")


def _as_before(name: str, task: str, session: Session, again: Callable[[], Ran]) -> Check:
    """`again` must give the same rows as the run of the hand answers."""
    columns = COLUMNS[task]
    return _check(name, lambda: differing(rows(session.main(task), columns), rows(again(), columns)))


def _pipeline(s: Session) -> list[Check]:
    def scaled() -> Encoder:
        return planted_encoder(weights={"gain": torch.tensor([7.5])})

    def uneven() -> Encoder:
        codes_PD = PlantedTowers(16).phrase_codes.data
        factors_P1 = torch.linspace(0.01, 50, len(codes_PD))[:, None]
        return planted_encoder(weights={"phrase_codes": codes_PD * factors_P1})

    return [
        _as_before("batch size 1: imagenet", "imagenet", s, lambda: s.run("imagenet", batch_size=1, cache=None)),
        _as_before("batch size 3, no cache: spair", "spair", s, lambda: s.run("spair", batch_size=3, cache=None)),
        _as_before("no cache: flickr30k", "flickr30k", s, lambda: s.run("flickr30k", cache=None)),
        _as_before("features read back from the cache: sevenscenes", "sevenscenes", s, lambda: s.run("sevenscenes")),
        _as_before("one loader process: imagenet", "imagenet", s, lambda: s.run("imagenet", workers=1, cache=None)),
        _as_before("extracted in two shards: flickr30k", "flickr30k", s, lambda: _sharded(s, "flickr30k")),
        _as_before("image and text vectors times 7.5: imagenet", "imagenet", s, lambda: _with(s, "imagenet", scaled())),
        _as_before("tokens times 7.5: spair", "spair", s, lambda: _with(s, "spair", scaled())),
        _as_before("captions of uneven length: flickr30k", "flickr30k", s, lambda: _with(s, "flickr30k", uneven())),
    ]


def _with(s: Session, task: str, encoder: Encoder) -> Ran:
    return s.run(task, encoder=encoder)


def _sharded(s: Session, task: str) -> Ran:
    """Both shards into one cache, one after the other, then a run that scores from it."""
    cache = s.new_folder()
    preset, fields = TASKS[task]
    jobs = [Job(protocol=protocol_for(task, preset, dict(fields)), preset=preset)]
    for i in range(2):
        extract = ExtractOptions(cache_dir=cache, workers=0)
        runner = Runner(s.data, None, RunOptions(extract=extract, quiet=True, shard=(i, 2)))
        runner.open(jobs)
        runner.run_model(s.encoder, jobs)
        if runner.failures:
            raise RuntimeError(runner.failures[0].message)
    ran = s.run(task, cache=cache)
    if ran.record.run["cache"]["misses"]:
        raise RuntimeError(f"shards left {ran.record.run['cache']['misses']} pictures out")
    return ran


def _fingerprints() -> Sequence[str]:
    towers = PlantedTowers(16)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        torch.save(towers.state_dict(), Path(folder) / "weights.pt")
        save_file(towers.state_dict(), str(Path(folder) / "weights.safetensors"))
        for name in ("weights.pt", "weights.safetensors"):
            state = read_state_dict(Path(folder) / name)
            load_strict(PlantedTowers(16), state, file=name)
            found.append(planted_encoder(weights=state).info.fingerprint)
    return found


def _order_of_files() -> Sequence[str]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for backwards in (False, True):
            root = Path(folder) / str(backwards)
            worlds_text.write_imagenet(root, backwards=backwards)
            found.append(check_dataset("imagenet", root).fingerprint)
    return found


def _same(a: Any, b: Any) -> str:
    return "same" if a == b else f"{str(a)[:8]} and {str(b)[:8]}"


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _permuted_images() -> str:
    images_ND, classes_CD, labels_N = _random(0, 60, 16), _random(1, 9, 16), torch.arange(60) % 9
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    plain = rank_classes(images_ND, classes_CD, labels_N).rank_N
    moved = rank_classes(images_ND[order], classes_CD, labels_N[order]).rank_N
    return differing(plain[order].tolist(), moved.tolist())


def _blocks() -> str:
    images_ID, captions_TD, owner_T = _random(3, 20, 12), _random(4, 60, 12), torch.arange(60) // 3
    found = [rank_retrieval(images_ID, captions_TD, owner_T, block=b) for b in (64, 1, 7)]
    lists = [[*r.t2i_rank_T.tolist(), *r.i2t_rank_I.tolist()] for r in found]
    return differing(lists[0] * 2, [*lists[1], *lists[2]])


def _factors() -> str:
    images_ID, captions_TD, owner_T = _random(5, 20, 12), _random(6, 60, 12), torch.arange(60) // 3
    plain = rank_retrieval(images_ID, captions_TD, owner_T)
    factors_T1 = torch.rand(60, 1, generator=torch.Generator().manual_seed(7)) * 100 + 0.01
    scaled = rank_retrieval(images_ID * 1000, captions_TD * factors_T1, owner_T)
    lists = [[*r.t2i_rank_T.tolist(), *r.i2t_rank_I.tolist()] for r in (plain, scaled)]
    return differing(*lists)
