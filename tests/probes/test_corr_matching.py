"""Lookup and ratio matching against torch's kernels and fp64 brute force (rows N6, N7, N12, N13)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mtv.errors import DataError, NumericalError, UsageError
from mtv.probes.matching import Matches, lookup_map, match_grids, ratio_matches, uniqueness, upsample_map


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def smooth_cells(seed: int, n: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells of two bicubically upsampled maps, the second a noisy copy: neighbours are nearly equal."""
    g = torch.Generator().manual_seed(seed)
    first = torch.randn(32, 32, 64, generator=g)
    second = first + noise * torch.randn(32, 32, 64, generator=g)
    return upsample_map(first).flatten(0, 1)[:n], upsample_map(second).flatten(0, 1)[:n]


def brute_force(feat0: torch.Tensor, feat1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """fp64 nearest neighbour and weight of every row, from whole rows."""
    index, weight = [], []
    for rows in feat0.double().split(500):
        cosine, order = torch.topk(rows @ feat1.double().T, 2, dim=1)
        d = (1 - cosine).clamp(min=1e-9)
        index.append(order[:, 0])
        weight.append(1 - d[:, 0] / d[:, 1])
    return torch.cat(index), torch.cat(weight)


def test_n6_weights() -> None:
    weight = uniqueness(
        torch.tensor([0.9, 1.0, 0.5], dtype=torch.float64), torch.tensor([0.8, 0.5, 0.5], dtype=torch.float64)
    )
    assert weight.tolist() == pytest.approx([0.5, 1 - 2e-9, 0.0], abs=1e-12)
    assert weight.dtype == torch.float64
    # Float32 cosines slightly above 1 stay finite.
    assert float(uniqueness(torch.tensor(1.0000002), torch.tensor(1.0000001))) == 0


@pytest.mark.parametrize("shape", [(32, 32), (37, 37), (5, 9)])
def test_upsample_equals_torch_bicubic(shape: tuple[int, int]) -> None:
    x = torch.randn(*shape, 24, generator=torch.Generator().manual_seed(0))
    up = F.interpolate(x.double().permute(2, 0, 1)[None], size=(128, 128), mode="bicubic", align_corners=False)
    expected = F.normalize(up[0], dim=0).permute(1, 2, 0)
    got = upsample_map(x.half().float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(upsample_map(x).double(), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(upsample_map(x.half()), got, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("size", "patch", "tokens", "pads", "step"),
    [
        ((512, 512), 16, (32, 32), (0, 0), 4),
        ((512, 512), 14, (37, 37), (3, 3), 4),
        ((480, 640), 16, (30, 40), (0, 0), 4),
        ((480, 640), 14, (35, 46), (5, 2), 4),
        ((192, 192), 8, (24, 24), (0, 0), 4),
        ((192, 192), 14, (14, 14), (2, 2), 2),
        ((150, 150), 16, (10, 10), (5, 5), 3),
    ],
)
def test_lookup_equals_grid_sample(
    size: tuple[int, int], patch: int, tokens: tuple[int, int], pads: tuple[int, int], step: int
) -> None:
    x = torch.randn(*tokens, 16, generator=torch.Generator().manual_seed(1))
    axes = [
        2 * (torch.arange(s // step, dtype=torch.float64) * step + step // 2 + 0.5 + p) / (s + 2 * p) - 1
        for s, p in zip(size, pads, strict=True)
    ]
    y, x_axis = torch.meshgrid(*axes, indexing="ij")
    sampled = F.grid_sample(
        x.double().permute(2, 0, 1)[None],
        torch.stack([x_axis, y], -1)[None],
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )
    got = lookup_map(x, image_size=size, patch=patch, step=step, phase=step // 2)
    assert got.shape == (size[0] // step, size[1] // step, 16)
    if step == 4:
        assert torch.equal(got, lookup_map(x, image_size=size, patch=patch))
    torch.testing.assert_close(got.double(), F.normalize(sampled[0], dim=0).permute(1, 2, 0), atol=2e-6, rtol=0)


def test_lookup_refuses_a_map_of_another_size() -> None:
    with pytest.raises(UsageError, match=r"map \(36, 37\) does not fit a 512x512 image with patch 14"):
        lookup_map(torch.randn(36, 37, 4), image_size=(512, 512), patch=14)


def test_lookup_reads_where_the_pixel_is() -> None:
    """A map linear in the true pixel position gives it back inside the border, up to the ripple of the kernel."""
    x = ((torch.arange(37) + 0.5) * 14 - 3).expand(37, 37)
    ramp = torch.stack([x, torch.full_like(x, 100.0)], dim=-1)
    got = lookup_map(ramp, image_size=(512, 512), patch=14)
    pixel = got[64, :, 0] / got[64, :, 1] * 100
    off = (pixel - (torch.arange(128) * 4 + 2.5))[8:-8]
    assert float(off.abs().max()) < 0.7
    assert abs(float(off.mean())) < 0.02
    # The probe3d lookup ignores padding and phase: it reads (4i + 2) * 518 / 512 - 3 for the point at 4i + 0.5.
    plain = upsample_map(ramp)
    shift = (plain[64, :, 0] / plain[64, :, 1] * 100 - (torch.arange(128) * 4 + 0.5))[8:-8]
    assert float(shift[:16].mean()) == pytest.approx(-1.48 + 0.0469 * 15.5, abs=0.1)
    assert float(shift[-16:].mean()) == pytest.approx(-1.48 + 0.0469 * 111.5, abs=0.1)


def test_n7_equal_distinctive_maps_match_themselves() -> None:
    grid = upsample_map(torch.randn(32, 32, 48, generator=torch.Generator().manual_seed(2)))
    valid = torch.rand(128, 128, generator=torch.Generator().manual_seed(3)) < 0.7
    found = match_grids(grid, valid, grid, valid, require_k=True)
    assert len(found.index0) == 1000
    assert torch.equal(found.index0, found.index1)
    assert bool(valid.flatten()[found.index0].all())
    assert float(found.cosine.min()) == pytest.approx(1, abs=1e-6)


def test_n12_valid_cells() -> None:
    grid = F.normalize(torch.randn(64, 64, 8, generator=torch.Generator().manual_seed(4)), dim=-1)
    few = torch.zeros(64, 64, dtype=torch.bool)
    few.view(-1)[torch.arange(999) * 4] = True
    with pytest.raises(DataError, match="a-b: image 0 has 999 valid cells, 1000 are needed"):
        match_grids(grid, few, grid, few, require_k=True, name="a-b")
    assert len(match_grids(grid, few, grid, few, require_k=False).index0) == 999
    enough = few.clone()
    enough.view(-1)[1] = True
    assert len(match_grids(grid, enough, grid, few, require_k=True).index0) == 1000
    single = torch.zeros_like(few)
    single[0, 0] = True
    for require_k in (True, False):
        with pytest.raises(DataError, match="image 1 has 1 valid cells"):
            match_grids(grid, enough, grid, single, require_k=require_k)
    with pytest.raises(DataError, match="image 0 has 0 valid cells"):
        match_grids(grid, ~few & few, grid, few, require_k=False)


def test_n13_chunked_top2_equals_brute_force() -> None:
    feat0, feat1 = smooth_cells(5, 4000, noise=1.0)
    found = ratio_matches(feat0, feat1, k=4000)
    index, weight = brute_force(feat0, feat1)
    order = found.index0.argsort()
    assert torch.equal(found.index0[order], torch.arange(4000))
    agree = found.index1[order] == index
    assert float(agree.float().mean()) >= 0.999
    torch.testing.assert_close(found.weight[order][agree], weight[agree], atol=2e-4, rtol=0)
    # Recall of the 1000 kept (a match is right if it finds its own cell): within 0.05 points.
    kept = ratio_matches(feat0, feat1, k=1000)
    best = weight.sort(descending=True, stable=True).indices[:1000]
    recall = 100 * float((kept.index0 == kept.index1).float().mean())
    expected = 100 * float((index[best] == best).float().mean())
    assert 5 < expected < 99.9, "the test must be able to fail"
    assert abs(recall - expected) <= 0.05 + 1e-9


def test_n13_reduced_precision_of_the_caller_changes_nothing() -> None:
    feat0, feat1 = smooth_cells(6, 2000, noise=0.3)
    plain = ratio_matches(feat0, feat1, k=500)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        caller = (torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision())
        lowered = ratio_matches(feat0, feat1, k=500)
        up = upsample_map(torch.ones(32, 32, 8))
        assert (torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()) == caller
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = ratio_matches(feat0, feat1, k=500)
    finally:
        torch.set_float32_matmul_precision(before)
    assert up.dtype == torch.float32
    for other in (lowered, cast):
        assert torch.equal(other.index0, plain.index0)
        assert torch.equal(other.index1, plain.index1)
        assert torch.equal(other.weight, plain.weight)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(2, 30), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**31))
def test_ties_go_to_the_lower_index(n: int, m: int, k: int, chunk: int, seed: int) -> None:
    """Features on a coarse lattice make exact ties in every row; products and chunks of any shape agree with a loop."""
    rng = np.random.default_rng(seed)
    feat0, feat1 = (rng.integers(-1, 2, size=(c, 3)).astype(np.float32) * np.float32(0.5) for c in (n, m))
    found = ratio_matches(torch.from_numpy(feat0), torch.from_numpy(feat1), k=k, chunk=chunk)
    rows = []
    for i in range(n):
        cosines = [float(feat0[i] @ feat1[j]) for j in range(m)]
        first = max(range(m), key=lambda j: (cosines[j], -j))
        second = max(cosines[j] for j in range(m) if j != first)
        weight = 1 - max(1 - cosines[first], 1e-9) / max(1 - second, 1e-9)
        rows.append((-weight, i, first))
    expected = sorted(rows)[:k]
    assert found.index0.tolist() == [i for _, i, _ in expected]
    assert found.index1.tolist() == [j for _, _, j in expected]
    assert found.weight.tolist() == pytest.approx([-w for w, _, _ in expected], abs=1e-12)


def test_chunk_size_does_not_matter() -> None:
    feat0, feat1 = unit(700, 96, 7), unit(900, 96, 8)
    reference = ratio_matches(feat0, feat1, k=300)
    for chunk in (1, 64, 699, 5000):
        other = ratio_matches(feat0, feat1, k=300, chunk=chunk)
        assert other.index0.tolist()[:250] == reference.index0.tolist()[:250]
        torch.testing.assert_close(other.weight, reference.weight, atol=1e-5, rtol=0)


def test_match_grids_returns_flat_cells() -> None:
    grid0 = torch.eye(6).reshape(2, 3, 6)
    grid1 = grid0.flip(1)
    valid = torch.tensor([[False, True, True], [True, False, True]])
    found: Matches = match_grids(grid0, valid, grid1, torch.ones(2, 3, dtype=torch.bool), k=4, require_k=True)
    assert dict(zip(found.index0.tolist(), found.index1.tolist(), strict=True)) == {1: 1, 2: 0, 3: 5, 5: 3}


def test_inputs_are_checked() -> None:
    good = unit(10, 4, 0)
    with pytest.raises(UsageError, match="float32"):
        ratio_matches(good.half(), good.half())
    with pytest.raises(UsageError, match="two rows"):
        ratio_matches(good, good[:1])
    with pytest.raises(UsageError, match="k=0"):
        ratio_matches(good, good, k=0)
    with pytest.raises(UsageError, match=r"\(10, 3\)"):
        ratio_matches(good, good[:, :3])
    bad = good.clone()
    bad[3, 1] = torch.nan
    for pair in ((bad, good), (good, bad)):
        with pytest.raises(NumericalError, match="NaN"):
            ratio_matches(*pair)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_matches_cpu() -> None:
    feat0, feat1 = smooth_cells(9, 4000, noise=0.5)
    cpu, gpu = ratio_matches(feat0, feat1, k=4000), ratio_matches(feat0.cuda(), feat1.cuda(), k=4000)
    order = gpu.index0.cpu().argsort()
    same = gpu.index1.cpu()[order] == cpu.index1[cpu.index0.argsort()]
    assert float(same.float().mean()) >= 0.999
