"""Learning rate factors against the table of protocol `segmentation` section 4 and against torch's schedulers."""

from __future__ import annotations

import pytest
import torch

from mtv.errors import UsageError
from mtv.probes.segmentation_schedule import WarmupPoly

PAPER = WarmupPoly(iters=40_000, warmup=1500)


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (0, 4e-11),
        (1, 2.6724e-8),
        (749, 1.99867e-5),
        (1499, 4e-5),
        (1500, 4e-5),
        (20_000, 2.07787e-5),
        (39_999, 0),
    ],
)
def test_printed_values(iteration: int, rate: float) -> None:
    assert 4e-5 * PAPER.factor(iteration) == pytest.approx(rate, rel=2e-5, abs=1e-20)


def test_not_the_older_form() -> None:
    """Warm-up times an already decaying rate would give 3.8475e-5 and 2.0e-5."""
    older = {t: min(1, t / 1500) * (1 - t / 40_000) * 4e-5 for t in (1499, 20_000)}
    assert older[20_000] == pytest.approx(2.0e-5)
    for t, value in older.items():
        assert 4e-5 * PAPER.factor(t) > 1.03 * value


@pytest.mark.parametrize(("iters", "warmup", "power"), [(60, 10, 1.0), (40, 2, 0.9), (30, 0, 1.0), (7, 6, 1.0)])
def test_equals_torch_schedulers(iters: int, warmup: int, power: float) -> None:
    """LinearLR from its first to its last step, then PolynomialLR to zero."""
    schedule = WarmupPoly(iters=iters, warmup=warmup, power=power)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    expected = []
    if warmup:
        scheduler: torch.optim.lr_scheduler.LRScheduler = torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1e-6, total_iters=warmup - 1
        )
        for _ in range(warmup):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=max(iters - warmup - 1, 1), power=power)
    for _ in range(iters - warmup):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [schedule.factor(t) for t in range(iters)] == pytest.approx(expected, abs=1e-9)


def test_shortest_runs() -> None:
    assert WarmupPoly(iters=1, warmup=0).factor(0) == 1
    two = WarmupPoly(iters=2, warmup=1)
    assert [two.factor(0), two.factor(1)] == [1e-6, 1]


def test_fields_are_checked() -> None:
    for wrong, name in (
        ({"iters": 0, "warmup": 0}, "iters"),
        ({"iters": 5, "warmup": 5}, "warmup"),
        ({"iters": 5, "warmup": -1}, "warmup"),
        ({"iters": 5, "warmup": 1, "power": 0.0}, "power"),
        ({"iters": 5, "warmup": 1, "start": 2.0}, "start"),
    ):
        with pytest.raises(UsageError, match=name):
            WarmupPoly(**wrong)  # type: ignore[arg-type]
    for t in (-1, 40_000):
        with pytest.raises(UsageError, match="0 to 39999"):
            PAPER.factor(t)
