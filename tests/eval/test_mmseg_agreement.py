"""Both engines beside each other: one head under both tests, and two heads trained on the same stored windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_helpers import make_job, measure
from segmentation_files import write_toy_ade

from mtv.encoders import load
from mtv.encoders.base import Encoder
from mtv.eval.heads.resume import HeadTraining
from mtv.eval.heads.segmentation_scoring import score_pictures
from mtv.eval.mmseg.installed import import_mmseg, installed
from mtv.probes.segmentation_head import LinearHead

pytest.importorskip("mmseg", reason="mmsegmentation is not installed: pip install mtv[mmseg]")


@pytest.fixture(autouse=True)
def _imported() -> None:
    """The way the engine imports it."""
    import_mmseg(installed())


def test_c1_one_head_under_both_engines(vit_tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that need no padding: stored features and our canvas give what sliding inference gives."""
    from mmseg_agreement import as_linear

    from mtv.eval.mmseg import training

    data, kept, train = write_toy_ade(tmp_path / "d"), {}, training.train_head

    def keep(model: Any, *args: Any, **kwargs: Any) -> HeadTraining:
        kept["head"] = model.decode_head
        return train(model, *args, **kwargs)

    def swapped(head: LinearHead, *args: Any) -> Any:
        return score_pictures(as_linear(kept["head"], head), *args)

    monkeypatch.setattr(training, "train_head", keep)
    monkeypatch.setattr("mtv.eval.tasks.segmentation.score_pictures", swapped)
    common: dict[str, Any] = {"crop": 80, "stride": 48, "batch": 4}
    paper = make_job("ade20k", "paper", **common, iters=6, lr=(3e-3,))
    fast = make_job("ade20k", "fast", **common, iters=1, epochs=None, lr=(3e-3,), storage="fp32")
    record, table = measure(vit_tiny, paper, data, tmp_path / "a")
    native, other = measure(vit_tiny, fast, data, tmp_path / "b")
    assert record.details["test_windows"] == native.details["test_windows"] == 12
    assert np.array_equal(table["labelled"], other["labelled"])
    assert (table["predicted"] > 0).sum() > 12, "a head that says one thing would prove nothing"
    for name in ("intersection", "predicted"):
        # Another rounding may move some pixels at borders.
        assert np.abs(table[name] - other[name]).sum() <= 20, name


def test_real_pictures_agree_with_the_native_head(real_data: Path) -> None:
    """Same stored windows, loss, optimiser and order on CamVid with the real ViT-Tiny: within 0.5 mIoU. The long run is
    tests/benchmarks/bench_mmseg_agreement.py."""
    from mmseg_agreement import agreement

    weights = real_data / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
    encoder = load(f"timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k@{weights}")
    found = agreement(
        encoder, "camvid", real_data, iters=24, crop=96, limit=6, train_images=12, batch=4, lr=(5e-3,), warmup=0.125
    )
    assert found.native > 12, "a head that has learnt nothing would prove nothing"
    assert abs(found.native - found.mmseg) < 0.5, found
    assert abs(found.mmseg - found.swapped) < 0.05, "one head, tested by both sides"
