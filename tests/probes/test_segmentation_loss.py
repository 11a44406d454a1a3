"""Losses against the batch form of torch: value, bit-equal gradients, memory, and the per-patch form (C3)."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import DataError, UsageError
from mtv.probes.segmentation_loss import block_counts, check_labels, loss_divisor, patch_loss, pixel_loss

IGN = 255


def drawn(
    batch: int, n_classes: int, grid: tuple[int, int], patch: int, *, seed: int = 0, ignored: float = 0.3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits B,C,h,w (float64) and labels B,H,W (uint8)."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, n_classes, *grid, generator=g, dtype=torch.float64)
    size = (batch, grid[0] * patch, grid[1] * patch)
    labels = torch.randint(0, n_classes, size, generator=g).to(torch.uint8)
    labels[torch.rand(size, generator=g) < ignored] = IGN
    return logits, labels


def batch_loss(logits: torch.Tensor, labels: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """All images at once, sum over valid pixels by the number of all pixels."""
    corners = {"align_corners": False} if mode == "bilinear" else {}
    full = F.interpolate(logits, size=labels.shape[1:], mode=mode, **corners)  # type: ignore[arg-type]
    return F.cross_entropy(full, labels.long(), ignore_index=IGN, reduction="none").sum() / labels.numel()


def gradient(loss_of: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> tuple[float, torch.Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = loss_of(leaf)
    loss.backward()
    assert leaf.grad is not None
    return float(loss.detach()), leaf.grad


@pytest.mark.parametrize(("grid", "patch"), [((9, 9), 16), ((6, 13), 14), ((5, 5), 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_per_image_loop_has_the_gradients_of_the_batch(grid: tuple[int, int], patch: int, dtype: torch.dtype) -> None:
    logits, labels = drawn(4, 21, grid, patch)
    labels[2] = IGN  # an image without a valid pixel
    logits = logits.to(dtype)
    expected, expected_grad = gradient(lambda x: batch_loss(x, labels), logits)
    value, grad = gradient(lambda x: pixel_loss(x, labels), logits)
    assert torch.equal(grad, expected_grad), "bit-equal"
    assert not grad[2].any()
    assert value == pytest.approx(expected, rel=1e-6 if dtype == torch.float32 else 1e-13)
    # Through a head, and with another factor behind the loss.
    assert torch.equal(gradient(lambda x: 4 * pixel_loss(x, labels), logits)[1], 4 * expected_grad)


def test_pixel_loss_without_gradients() -> None:
    logits, labels = drawn(2, 5, (4, 4), 8)
    loss = pixel_loss(logits, labels)
    assert not loss.requires_grad
    assert float(loss) == pytest.approx(float(batch_loss(logits, labels)), rel=1e-13)
    with torch.no_grad():
        assert float(pixel_loss(logits.requires_grad_(), labels)) == float(loss)


def saved_peak(loss_of: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> int:
    """Most bytes of different storages that autograd held at any time."""
    live: dict[int, tuple[int, int]] = {}
    peak = 0

    class Held:
        def __init__(self, x: torch.Tensor) -> None:
            self.x = x

    def pack(x: torch.Tensor) -> Held:
        nonlocal peak
        held = Held(x)
        live[id(held)] = (x.untyped_storage().data_ptr(), x.untyped_storage().nbytes())
        weakref.finalize(held, live.pop, id(held))
        peak = max(peak, sum(n for _, n in set(live.values())))
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.x):
        gradient(loss_of, logits)
    return peak


def test_memory_does_not_grow_with_the_batch() -> None:
    few, many = drawn(2, 10, (8, 8), 16), drawn(8, 10, (8, 8), 16)
    ours = [saved_peak(lambda x, y=labels: pixel_loss(x, y), logits) for logits, labels in (few, many)]
    batch = [saved_peak(lambda x, y=labels: batch_loss(x, y), logits) for logits, labels in (few, many)]
    image = 10 * 128 * 128 * 8
    assert image <= ours[0] == ours[1] < 2 * image
    assert batch[1] > 3.5 * batch[0]
    assert ours[1] < batch[1] / 6


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from([1, 2, 7, 14, 16]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2**31),
)
def test_c3_patch_counts_equal_nearest_pixels(
    batch: int, n_classes: int, grid: tuple[int, int], patch: int, ignored: float, seed: int
) -> None:
    logits, labels = drawn(batch, n_classes, grid, patch, seed=seed, ignored=ignored)
    counts = block_counts(labels, grid, n_classes)
    divisor = loss_divisor(labels, "all")
    value, grad = gradient(lambda x: patch_loss(x.permute(0, 2, 3, 1), counts.double(), divisor), logits)
    expected, expected_grad = gradient(lambda x: batch_loss(x, labels, "nearest"), logits)
    assert abs(value - expected) < 1e-12
    torch.testing.assert_close(grad, expected_grad, atol=1e-12, rtol=0)
    naive = torch.zeros(batch, *grid, n_classes)
    for b, y, x in (labels != IGN).nonzero().tolist():
        naive[b, y // patch, x // patch, int(labels[b, y, x])] += 1
    assert torch.equal(counts, naive)


def test_t4_all_pixels_divide() -> None:
    logits, labels = drawn(2, 150, (6, 6), 16, ignored=0.2982)
    valid = float((labels != IGN).double().mean())
    assert 0.6 < valid < 0.8
    everything, only_valid = (float(pixel_loss(logits, labels, mean=m)) for m in ("all", "valid"))  # type: ignore[arg-type]
    assert everything == pytest.approx(valid * only_valid, rel=1e-12)
    mean = F.cross_entropy(
        F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False),
        labels.long(),
        ignore_index=IGN,
    )
    assert only_valid == pytest.approx(float(mean), rel=1e-12)
    counts = block_counts(labels, (6, 6), 150).double()
    of_patches = [patch_loss(logits.permute(0, 2, 3, 1), counts, loss_divisor(labels, m)) for m in ("all", "valid")]  # type: ignore[arg-type]
    assert float(of_patches[0]) == pytest.approx(valid * float(of_patches[1]), rel=1e-12)


def test_the_patch_form_is_near_the_bilinear_one() -> None:
    """Section 9: nearest and bilinear losses differ in the third digit on logits of a fresh head."""
    logits, labels = drawn(2, 150, (9, 9), 16)
    logits *= 0.1
    counts = block_counts(labels, (9, 9), 150).double()
    nearest = float(patch_loss(logits.permute(0, 2, 3, 1), counts, labels.numel()))
    bilinear = float(pixel_loss(logits, labels))
    assert nearest != bilinear
    assert nearest == pytest.approx(bilinear, rel=2e-3)


def test_no_valid_pixel_is_no_loss() -> None:
    logits, labels = drawn(2, 5, (3, 3), 4, ignored=1)
    for mean in ("all", "valid"):
        value, grad = gradient(lambda x, m=mean: pixel_loss(x, labels, mean=m), logits)  # type: ignore[misc]
        assert value == 0
        assert not grad.any()


def test_t2_labels_outside_the_classes() -> None:
    logits, labels = drawn(1, 150, (2, 2), 4, ignored=0)
    wrapped = torch.tensor([0, 1, 150, 255], dtype=torch.uint8) - 1  # 255 0 149 254
    assert wrapped.tolist() == [255, 0, 149, 254]
    labels[0, 0, :4] = wrapped
    with pytest.raises(IndexError):  # what torch says without our check; on a GPU the process aborts
        batch_loss(logits, labels)
    for call in (lambda: pixel_loss(logits, labels), lambda: block_counts(labels, (2, 2), 150)):
        with pytest.raises(DataError, match=r"label 254 is neither a class 0 to 149 nor 255 \(1 pixels"):
            call()
    with pytest.raises(DataError, match="label -1 is neither"):
        check_labels(torch.tensor([0, 1, 150, 255]) - 1, 150)
    check_labels(torch.tensor([0, 149, 255]), 150)
    check_labels(torch.zeros(0, dtype=torch.int64), 150)


def test_inputs_are_checked() -> None:
    logits, labels = drawn(2, 5, (3, 3), 4)
    with pytest.raises(UsageError, match="loss_mean"):
        pixel_loss(logits, labels, mean="some")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"\(2, 5, 3, 3\) and \(1, 12, 12\)"):
        pixel_loss(logits, labels[:1])
    with pytest.raises(UsageError, match="5x3 grid of patches does not divide"):
        block_counts(labels, (5, 3), 5)
    with pytest.raises(UsageError, match="equal shapes"):
        patch_loss(logits, torch.zeros(2, 3, 3, 5), 1)
    with pytest.raises(UsageError, match="integers"):
        check_labels(labels.float(), 5)
