"""Schedules of the depth probe against the table of the protocol and torch's schedulers (rows O1, O2)."""

from __future__ import annotations

import math

import pytest
import torch

from mtv.errors import UsageError
from mtv.probes.depth_schedule import DepthSchedule

PAPER = DepthSchedule()
LR = {0: 1.0e-7, 3200: 2.4648e-5, 6400: 4.6697e-5, 12_800: 7.5e-5, 19_200: 5.0e-5, 25_600: 2.5e-5, 38_399: 1.167e-12}
BETA1 = {0: 0.95, 5760: 0.9, 11_519: 0.85, 12_800: 0.85056, 19_200: 0.86883, 24_959: 0.9, 38_399: 0.95}


def test_o1_table() -> None:
    for step, lr in LR.items():
        assert PAPER.lr_at(step) == pytest.approx(lr, rel=1e-3 if step == 38_399 else 1e-4), step
    for step, beta1 in BETA1.items():
        assert PAPER.beta1_at(step) == pytest.approx(beta1, rel=1e-4), step
    assert (PAPER.steps, PAPER.batch, PAPER.samples, PAPER.ramp_steps) == (38_400, 16, 614_400, 12_800)
    assert (PAPER.beta2, PAPER.weight_decay, PAPER.clip_norm) == (0.999, 0.01, 35.0)


def test_o1_last_step_in_closed_form() -> None:
    share = 1e-8 + (1 - 1e-8) * (1 + math.cos(math.pi * 38_399 / 38_400)) / 2
    assert PAPER.lr_at(38_399) == pytest.approx(1e-4 * share, rel=1e-6)


def test_o1_maximum_at_the_end_of_the_ramp() -> None:
    rates = [PAPER.lr_at(step) for step in range(PAPER.steps)]
    assert max(range(PAPER.steps), key=rates.__getitem__) == 12_800
    assert max(rates) == pytest.approx(7.5e-5, rel=1e-7)
    betas = [PAPER.beta1_at(step) for step in range(PAPER.steps)]
    assert min(range(PAPER.steps), key=betas.__getitem__) == 11_519
    assert min(betas) == pytest.approx(0.85, abs=1e-9)


def test_o2_halved_batch_doubles_steps_and_ramps() -> None:
    half = PAPER.for_batch(8)
    assert (half.steps, half.batch, half.samples, half.ramp_steps) == (76_800, 8, 614_400, 25_600)
    assert half.lr == PAPER.lr
    for step in (0, 3200, 12_800, 19_200, 30_000):
        assert half.lr_at(2 * step) == pytest.approx(PAPER.lr_at(step), rel=1e-9)
        assert half.beta1_at(2 * step) == pytest.approx(PAPER.beta1_at(step), abs=1e-5)
    assert PAPER.for_batch(16) == PAPER


@pytest.mark.filterwarnings("ignore:Detected call of")  # no optimiser steps here
def test_equals_torchs_schedulers() -> None:
    """The product of torch's cosine and linear ramp; momentum of torch's two-phase one-cycle policy."""
    ours = DepthSchedule(steps=384)
    optimizers = [torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1e-4) for _ in range(2)]
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[0], T_max=384, eta_min=1e-12)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizers[1], max_lr=1e-4, total_steps=384, pct_start=0.3, base_momentum=0.85, max_momentum=0.95
    )
    for step in range(384):
        ramp = min(1.0, 1e-3 + (1 - 1e-3) * step / 128)
        assert ours.lr_at(step) == pytest.approx(cosine.get_last_lr()[0] * ramp, rel=1e-9), step
        assert ours.beta1_at(step) == pytest.approx(optimizers[1].param_groups[0]["betas"][0], abs=1e-12), step
        cosine.step()
        if step < 383:
            cycle.step()


def test_settings_fit_an_adamw_group() -> None:
    group = torch.optim.AdamW([torch.ones(3, requires_grad=True)]).param_groups[0]
    assert set(PAPER.adamw_settings(0)) < set(group)
    group.update(PAPER.adamw_settings(5))
    assert (group["lr"], group["betas"]) == (PAPER.lr_at(5), (PAPER.beta1_at(5), 0.999))
    assert group["weight_decay"] == 0.01


@pytest.mark.parametrize("steps", [4, 7, 30, 101])
def test_short_schedules_stay_in_range(steps: int) -> None:
    short = DepthSchedule(steps=steps)
    for step in range(steps):
        assert 0 < short.lr_at(step) <= 1e-4
        assert 0.85 <= short.beta1_at(step) <= 0.95
    assert short.beta1_at(0) == pytest.approx(0.95)
    assert short.beta1_at(steps - 1) == pytest.approx(0.95)


def test_bad_fields_are_named() -> None:
    bad = {
        "steps": 3,
        "batch": 0,
        "lr": 0.0,
        "clip_norm": math.inf,
        "beta1_low": 1.0,
        "weight_decay": -1.0,
        "ramp_share": 1.5,
    }
    names = {"steps": "beta1_share"}
    for field, value in bad.items():
        with pytest.raises(UsageError, match=names.get(field, field)):
            DepthSchedule(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="must divide 614400 images, got 7"):
        PAPER.for_batch(7)
