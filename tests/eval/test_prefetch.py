"""Reading ahead: order, errors in their turn, and which thread reads."""

from __future__ import annotations

import threading

import pytest
import torch

from mtv.eval.heads.prefetch import prefetch


@pytest.mark.parametrize("device", [None, torch.device("cpu"), torch.device("meta")])
def test_steps_come_in_order_and_errors_in_their_turn(device: torch.device | None) -> None:
    threads: set[int] = set()
    seen: list[tuple[int, int]] = []

    def read(step: int) -> int:
        threads.add(threading.get_ident())
        if step == 3:
            raise ValueError("step 3")
        return step * step

    def run() -> None:
        for pair in prefetch(range(6), read, device):
            seen.append(pair)

    with pytest.raises(ValueError, match="step 3"):
        run()
    assert seen == [(0, 0), (1, 1), (2, 4)]
    reads_here = device is not None and device.type == "cpu"
    assert (threading.get_ident() in threads) == reads_here
