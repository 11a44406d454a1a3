"""Counted operations against `protocols/trainer_performance.md` section 1 (GFLOP per image, B/16)."""

from __future__ import annotations

import pytest
import torch

from mtv.train.flops import PEAK_BF16, count_work, peak_of
from mtv.train.recipes import get_recipe

PUBLISHED = {
    "global": (106.0, 0.002),
    "captions": (33.1, 0.07),
    "region_text": (33.1, 0.07),
    "teacher": (35.4, 0.002),
    "locals": (113.2, 0.002),
    "masked": (104.6, 0.002),
    "dino_head": (0.5, 0.1),
    "ibot_head": (8.6, 0.01),
    "teacher_heads": (2.9, 0.01),
    "prompter": (1.6, 0.05),
    "prompter_literal": (35.3, 0.02),
    "dpt": (34.5, 0.04),
}
"""Value and tolerance; ours computes less for text (one row of the last block) and for DPT (1x1 before upsampling)."""


def test_every_pass_of_b16_is_that_of_the_table() -> None:
    work = count_work(get_recipe("mtv_b16_10m"))
    assert set(work.parts) == set(PUBLISHED)
    for name, (gflop, tolerance) in PUBLISHED.items():
        assert work.parts[name] / 1e9 == pytest.approx(gflop, rel=tolerance), name
    assert work.executed(4585 / 8192) / 1e9 == pytest.approx(459, rel=0.02)
    assert work.literal() / 1e9 == pytest.approx(606, rel=0.02)
    assert work.only(("vl",)).executed(0) / 1e9 == pytest.approx(139, rel=0.02)
    assert work.only(("vl", "ssl")).executed(0) / 1e9 == pytest.approx(404, rel=0.02)
    assert work.only(("vl",)).literal() == work.only(("vl",)).executed(0)


def test_peaks_are_looked_up_and_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda:0")
    names = {"NVIDIA H200": "H200", "NVIDIA H100 80GB HBM3": "H100", "NVIDIA H100 PCIe": "H100 PCIe", "Unheard": None}
    for name, key in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert peak_of(device, bf16=True) == (PEAK_BF16[key] if key else None)
        assert peak_of(device, bf16=False) is None
    assert peak_of(torch.device("cpu"), bf16=True) is None
