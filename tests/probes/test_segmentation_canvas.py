"""Window logits to label maps: chunks against the full argmax, overlaps, padding, and the traps T8, T9 and C5."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import NumericalError, UsageError
from mtv.probes.segmentation_canvas import label_map, mean_logits, resize_logits
from mtv.probes.segmentation_windows import Window, WindowGeometry, padded_size, resized_size, tile, window_geometry

SMALL = WindowGeometry(patch=16, crop=96, stride=64)


def drawn(windows: list[Window], patch: int, n_classes: int) -> list[torch.Tensor]:
    """Logits per window, C,h,w."""
    g = torch.Generator().manual_seed(0)
    return [torch.randn(n_classes, w.height // patch, w.width // patch, generator=g) for w in windows]


def full_canvas(windows: list[Window], logits: list[torch.Tensor], *, softmax: bool = False) -> torch.Tensor:
    """Pixel by pixel in windows: all classes at once, the mean over the windows that hold the pixel."""
    height, width = (
        max(getattr(w, a) + getattr(w, b) for w in windows) for a, b in (("top", "height"), ("left", "width"))
    )
    total, count = torch.zeros(len(logits[0]), height, width), torch.zeros(height, width)
    for w, x in zip(windows, logits, strict=True):
        up = F.interpolate(x[None], (w.height, w.width), mode="bilinear", align_corners=False)[0]
        pads = (w.left, width - w.left - w.width, w.top, height - w.top - w.height)
        total += F.pad(up.softmax(0) if softmax else up, pads)
        count += F.pad(torch.ones(w.height, w.width), pads)
    return total / count


def full_labels(canvas: torch.Tensor, content: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    cut = canvas[None, :, : content[0], : content[1]]
    return F.interpolate(cut, size, mode="bilinear", align_corners=False)[0].argmax(0)


@pytest.mark.parametrize(
    ("width", "height"), [(160, 120), (150, 128), (200, 90), (300, 70), (90, 200), (97, 131), (96, 96), (40, 30)]
)
def test_label_map_equals_the_full_argmax(width: int, height: int) -> None:
    content = resized_size(height, width, SMALL)
    windows = tile(*padded_size(*content, 16), SMALL)
    logits = drawn(windows, 16, 45)
    canvas = full_canvas(windows, logits)
    assert torch.equal(mean_logits(windows, logits), canvas)
    expected = full_labels(canvas, content, (height, width))
    for chunk in (10, 7, 45, 1000):
        got = label_map(windows, logits, content=content, size=(height, width), chunk=chunk)
        assert got.dtype == torch.uint8
        assert got.shape == (height, width), "T3: the size of the original label"
        assert torch.equal(got.long(), expected)


def test_at_the_sizes_of_the_protocol() -> None:
    geometry = window_geometry(16)
    content = resized_size(364, 500, geometry)
    windows = tile(*padded_size(*content, 16), geometry)
    logits = drawn(windows, 16, 30)
    assert [tuple(x.shape) for x in logits] == [(30, 36, 36)] * 2
    expected = full_labels(full_canvas(windows, logits), content, (364, 500))
    assert torch.equal(label_map(windows, logits, content=content, size=(364, 500)).long(), expected)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 25),
    st.integers(1, 9),
    st.integers(10, 90),
    st.integers(10, 90),
    st.sampled_from([8, 14]),
    st.integers(0, 2**31),
)
def test_ties_go_to_the_lowest_class(
    n_classes: int, chunk: int, height: int, width: int, patch: int, seed: int
) -> None:
    """At the windows' own size nothing is interpolated: ties are exact and frequent, and every chunk size agrees."""
    geometry = WindowGeometry(patch=patch, crop=4 * patch, stride=3 * patch)
    padded = padded_size(height, width, patch)
    windows = tile(*padded, geometry)
    g = torch.Generator().manual_seed(seed)
    logits = [torch.randint(0, 3, (n_classes, w.height, w.width), generator=g).float() for w in windows]
    got = label_map(windows, logits, content=(height, width), size=(height, width), chunk=chunk)
    canvas = full_canvas(windows, logits)[:, :height, :width]
    lowest = (canvas == canvas.amax(0)).int().argmax(0)
    assert torch.equal(got.long(), lowest)


def test_padding_is_cut_before_upsampling() -> None:
    """A class that wins in the padding only never appears."""
    content, windows = (96, 100), tile(96, 112, SMALL)
    logits = drawn(windows, 16, 3)
    canvas = full_canvas(windows, logits)
    canvas[2, :, 100:] = 1e6
    expected = full_labels(canvas, content, (200, 210))
    got = label_map([Window(top=0, left=0, height=96, width=112)], [canvas], content=content, size=(200, 210))
    assert torch.equal(got.long(), expected)
    late = F.interpolate(canvas[None], (200, 210 * 112 // 100), mode="bilinear")[0].argmax(0)
    assert int((late[:, :210] == 2).sum()) > int((got == 2).sum()), "the test must be able to fail"


def test_half_precision_logits_are_averaged_in_float32() -> None:
    windows = tile(96, 160, SMALL)
    logits = [x.half() for x in drawn(windows, 16, 4)]
    expected = full_canvas(windows, [x.float() for x in logits])
    assert mean_logits(windows, logits).dtype == torch.float32
    assert torch.equal(mean_logits(windows, logits), expected)


def test_t8_align_corners_is_off() -> None:
    x = torch.randn(150, 36, 36, generator=torch.Generator().manual_seed(0))
    ours = resize_logits(x, (576, 576)).argmax(0)
    wrong = F.interpolate(x[None], (576, 576), mode="bilinear", align_corners=True)[0].argmax(0)
    assert float((ours != wrong).float().mean()) == pytest.approx(0.58, abs=0.02)


def test_t9_logits_are_averaged_not_probabilities() -> None:
    windows = tile(192, 320, WindowGeometry(patch=16, crop=192, stride=128))
    logits = drawn(windows, 16, 20)
    ours = label_map(windows, logits, content=(192, 320), size=(192, 320))
    wrong = full_canvas(windows, logits, softmax=True).argmax(0)
    assert float((ours != wrong)[:, 128:192].float().mean()) > 0.2
    assert torch.equal(ours[:, :128].long(), wrong[:, :128])


def test_c5_convolution_and_upsampling_commute() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 96, 12, 12, generator=g)
    conv = torch.nn.Conv2d(96, 20, 1)
    first = resize_logits(conv(x)[0], (192, 192))
    last = conv(F.interpolate(x, (192, 192), mode="bilinear", align_corners=False))[0]
    assert float((first - last).detach().abs().max()) < 1e-4


def test_inputs_are_checked() -> None:
    windows = tile(96, 160, SMALL)
    logits = drawn(windows, 16, 4)
    call = {"content": (96, 160), "size": (50, 60)}
    with pytest.raises(UsageError, match="got 1 for 2 windows"):
        label_map(windows, logits[:1], **call)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one C of 1 to 255"):
        label_map(windows, [logits[0], logits[1][:3]], **call)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="windows span"):
        label_map(windows, logits, content=(97, 160), size=(50, 60))
    gap = [windows[0], Window(top=0, left=100, height=96, width=60)]
    with pytest.raises(UsageError, match="384 pixels lie in no window"):
        label_map(gap, logits, **call)  # type: ignore[arg-type]
    logits[1][2, 3, 4] = torch.nan
    with pytest.raises(NumericalError, match="window 1"):
        label_map(windows, logits, **call)  # type: ignore[arg-type]
