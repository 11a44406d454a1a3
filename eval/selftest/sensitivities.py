"""Sensitivities: what must move the number, or be refused. All runs share one feature cache, so that a key which
forgets something shows as a number that stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mtv.errors import MtvError
from mtv.eval.datasets.registry import check_dataset
from mtv.eval.protocols import protocol_for
from mtv.eval.selftest import worlds_dense, worlds_text
from mtv.eval.selftest.checks import Check, differs_from
from mtv.eval.selftest.pictures import identity_picture, save
from mtv.eval.selftest.planted import PlantedTowers, planted_encoder
from mtv.eval.selftest.session import Session


def checks(session: Session) -> list[Check]:
    """Preprocessing, labels, directions, weights, changed files, taps, poses, NaN, wrong folders, protocol fields."""
    s = session
    return [
        _moves("wrong mean and std: imagenet top1", 75.0, lambda: _wrong_statistics(s)),
        _answer("labels shifted by one class: imagenet top1", 12.5, lambda: _shifted_labels(s)),
        _answer("weights of one identity changed: imagenet top1", (75.0, 62.5), lambda: _other_weights(s)),
        _answer("one picture replaced in place: imagenet top1", (75.0, 62.5), lambda: _replaced_picture(s)),
        _moves("directions: coco t2i_r1, i2t_r1", (50.0, 50.0), lambda: s.main("coco").values("t2i_r1", "i2t_r1")),
        _moves("block 0 instead of the last: spair avg_recall", 50.0, lambda: _first_block(s)),
        _moves("inverted poses: sevenscenes avg_recall", 200 / 3, lambda: _inverted_poses(s)),
        _answer("NaN in the weights is an error that names", "ILSVRC2012_val_00000006", lambda: _nan_weights(s)),
        _answer("class folders 1, 2, ... are refused (Z13)", ("wrong", "devkit"), lambda: _numbered_folders(s)),
        _answer("prefix, first5, same_text, dual_softmax: protocols (R8)", 5, _protocol_hashes),
    ]


def _answer(name: str, expected: Any, measure: Callable[[], Any]) -> Check:
    return Check(layer="sensitivity", name=name, expected=expected, measure=measure)


def _moves(name: str, usual: Any, measure: Callable[[], Any]) -> Check:
    words = f"not {usual:.4g}" if isinstance(usual, float) else "two numbers"
    return Check(layer="sensitivity", name=name, expected=words, measure=measure, agrees=differs_from(usual))


def _top1(s: Session, **options: Any) -> Any:
    return s.run("imagenet", **options).values("top1")[0]


def _wrong_statistics(s: Session) -> Any:
    record = s.encoder.info.image.with_(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return _top1(s, encoder=planted_encoder(image=record))


def _shifted_labels(s: Session) -> Any:
    root = s.new_folder()
    worlds_text.write_imagenet(root, relabel=lambda c: (c + 1) % 3)
    return _top1(s, data=root)


def _other_weights(s: Session) -> tuple[Any, Any]:
    """Before, and when identity 1 answers like identity 0: its picture of class 1 is lost."""
    codes_ID = PlantedTowers(16).image_codes.data.clone()
    codes_ID[1] = codes_ID[0]
    return _top1(s), _top1(s, encoder=planted_encoder(weights={"image_codes": codes_ID}))


def _replaced_picture(s: Session) -> tuple[Any, Any]:
    """The same path, once as identity 1 and once as identity 0."""
    root = s.new_folder()
    worlds_text.write_imagenet(root)
    before = _top1(s, data=root)
    (path,) = root.rglob("ILSVRC2012_val_00000006.JPEG")
    save(identity_picture(0, 6), path)
    return before, _top1(s, data=root)


def _first_block(s: Session) -> Any:
    return s.run("spair", fields={"layer": 0}).values("avg_recall")[0]


def _inverted_poses(s: Session) -> Any:
    root = s.new_folder()
    worlds_dense.write_sevenscenes(root, inverted=True)
    return s.run("sevenscenes", data=root).values("avg_recall")[0]


def _nan_weights(s: Session) -> str:
    codes_ID = PlantedTowers(16).image_codes.data.clone()
    codes_ID[1] = torch.nan
    try:
        value = _top1(s, encoder=planted_encoder(weights={"image_codes": codes_ID}))
    except MtvError as e:
        # Picture 6 is the only one of identity 1.
        name = "ILSVRC2012_val_00000006"
        return name if name in str(e) and "NumericalError" in str(e) else str(e)
    return f"no error, top1 {value}"


def _numbered_folders(s: Session) -> tuple[str, str]:
    root = s.new_folder()
    for number in range(1, 4):
        save(identity_picture(0, 0), root / "imagenet" / "val" / str(number) / f"ILSVRC2012_val_{number:08d}.JPEG")
    report = check_dataset("imagenet", Path(root))
    return report.verdict, "devkit" if any("devkit" in p for p in report.problems) else "no reason"


def _protocol_hashes() -> int:
    variants: list[dict[str, Any]] = [
        {},
        {"prefix": "a photo of "},
        {"captions": "first5"},
        {"positives": "same_text"},
        {"score": "dual_softmax"},
    ]
    return len({protocol_for("coco", "paper", fields).hash for fields in variants})
