"""Region-text loss: pair by pair, with distinct names, with missing regions (G1, G6, G9), and the list of names."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtv.errors import UsageError
from mtv.losses.grounding import DUPLICATES, region_loss, unique_region_loss
from mtv.losses.names import UniqueNames, unique_names

POLICIES = [(d, c) for d in DUPLICATES for c in (None, 0.3)]


class Regions:
    """A batch with few names, so that many regions share one, and its parameters."""

    def __init__(self, seed: int, images: int, slots: int, names: int, share: float = 0.7, width: int = 12) -> None:
        g = torch.Generator().manual_seed(seed)
        self.u_BRD = torch.randn(images, slots, width, generator=g, dtype=torch.float64, requires_grad=True)
        self.table_ND = torch.randn(names, width, generator=g, dtype=torch.float64, requires_grad=True)
        self.which_BR = torch.randint(0, names, (images, slots), generator=g)
        self.name_BR = (self.which_BR * 2_654_435_761 - 2**62) * 3  # hashes have any sign and order
        self.valid_BR = torch.rand(images, slots, generator=g) < share
        self.pair = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (1.6, -2.0)]
        self.leaves = [self.u_BRD, self.table_ND, *self.pair]

    def literal(self, duplicates: str, ignore_cos: float | None) -> Tensor:
        options = {"duplicates": duplicates, "ignore_cos": ignore_cos}
        text_BRD = self.table_ND[self.which_BR]
        return region_loss(self.u_BRD, text_BRD, self.name_BR, self.valid_BR, *self.pair, **options)[0]  # type: ignore[arg-type]

    def unique(self, duplicates: str, ignore_cos: float | None, multiple: int = 1) -> Tensor:
        options = {"duplicates": duplicates, "ignore_cos": ignore_cos}
        names = unique_names(self.name_BR, self.valid_BR, multiple=multiple)
        text_LD = self.table_ND[self.which_BR.flatten()[names.local_slots]]
        return unique_region_loss(self.u_BRD, text_LD, names, self.valid_BR, *self.pair, **options)[0]  # type: ignore[arg-type]

    def naive(self, duplicates: str, ignore_cos: float | None) -> Tensor:
        u, which = F.normalize(self.u_BRD, dim=-1).flatten(0, 1), self.which_BR.flatten()
        table = F.normalize(self.table_ND, dim=-1)
        slots = [k for k, valid in enumerate(self.valid_BR.flatten().tolist()) if valid]
        total = u.new_zeros(())
        for i in slots:
            for j in slots:
                same = bool(which[i] == which[j])
                positive = i == j or (same and duplicates == "positive")
                if not positive and same and duplicates == "ignore":
                    continue
                cosine = 1.0 if same else float((table[which[i]] @ table[which[j]]).detach())
                if not positive and ignore_cos is not None and cosine > ignore_cos:
                    continue
                logit = self.pair[0].exp() * (u[i] @ table[which[j]]) + self.pair[1]
                total = total + F.softplus(-logit if positive else logit).sum()
        return total / max(1, len(slots))


def assert_equal(one: Tensor, other: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    for a, b in zip(*(torch.autograd.grad(x, leaves, retain_graph=True) for x in (one, other)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("duplicates", "ignore_cos"), POLICIES)
@pytest.mark.parametrize(("images", "slots", "names"), [(6, 4, 5), (3, 1, 1), (2, 4, 40)])
def test_both_forms_equal_the_double_loop(
    duplicates: str, ignore_cos: float | None, images: int, slots: int, names: int
) -> None:
    case = Regions(images * slots, images, slots, names)
    assert case.valid_BR.any()
    oracle = case.naive(duplicates, ignore_cos)
    assert_equal(case.literal(duplicates, ignore_cos), oracle, case.leaves)
    assert_equal(case.unique(duplicates, ignore_cos), oracle, case.leaves)


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_unique_form_equals_the_literal_form_at_size(duplicates: str) -> None:
    case = Regions(1, images=256, slots=4, names=300, width=64)
    assert_equal(case.unique(duplicates, None, multiple=64), case.literal(duplicates, None), case.leaves)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 6),
    slots=st.integers(1, 4),
    names=st.integers(1, 12),
    share=st.sampled_from([0.0, 0.2, 1.0]),
    policy=st.sampled_from(POLICIES),
    multiple=st.integers(1, 5),
)
def test_unique_form_equals_the_literal_form_anywhere(
    seed: int, images: int, slots: int, names: int, share: float, policy: tuple[str, float | None], multiple: int
) -> None:
    case = Regions(seed, images, slots, names, share)
    assert_equal(case.unique(*policy, multiple=multiple), case.literal(*policy), case.leaves)


@pytest.mark.parametrize("form", ["literal", "unique"])
@pytest.mark.parametrize("junk", [1e3, float("nan"), float("inf")])
def test_contents_of_invalid_slots_do_not_matter_to_a_bit(form: str, junk: float) -> None:
    case = Regions(3, images=8, slots=4, names=5)

    def run() -> tuple[Tensor, ...]:
        loss = getattr(case, form)("ignore", None)
        return (loss, *torch.autograd.grad(loss, case.leaves))

    before = run()
    with torch.no_grad():
        case.u_BRD[~case.valid_BR] = junk
        case.which_BR[~case.valid_BR] = (case.which_BR[~case.valid_BR] + 1) % 5
        case.name_BR[~case.valid_BR] = -7
    after = run()
    assert all(a.equal(b) for a, b in zip(before, after, strict=True))
    assert (after[1][~case.valid_BR] == 0).all()


@pytest.mark.parametrize("form", ["literal", "unique"])
def test_no_region_at_all_is_zero_with_a_gradient_path(form: str) -> None:
    case = Regions(3, images=4, slots=4, names=5, share=0.0)
    loss = getattr(case, form)("ignore", None)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, case.leaves))


def test_32768_regions_of_cosine_zero_start_at_the_tabulated_value() -> None:
    """One of 32 ranks with its 1,024 regions: all names distinct, or all the same few as `negative` has it."""
    regions, local = 32_768, 1024
    u, start = torch.tensor([1.0, 0]).expand(1, local, 2), (torch.tensor([math.log(10)]), torch.tensor([-10.0]))
    valid = torch.ones(1, local, dtype=torch.bool)
    for distinct, duplicates in ((regions, "ignore"), (regions, "negative"), (8, "negative")):
        names = UniqueNames(
            ids_V=torch.arange(distinct),
            counts_V=torch.full((distinct,), regions // distinct),
            slots_V=torch.arange(distinct),
            own_BR=torch.arange(local).remainder(distinct).unsqueeze(0),
            number=distinct,
        )
        text = torch.tensor([0.0, 1]).expand(distinct, 2)
        loss, report = unique_region_loss(u, text, names, valid, *start, duplicates=duplicates)
        assert 32 * loss.item() == pytest.approx(11.4876, abs=1e-3)
        assert report.regions == regions


def test_literal_form_of_distinct_names_starts_alike_in_both_modes() -> None:
    u, t = torch.eye(2)[:, None, None, :].expand(2, 512, 4, 2)
    pair = (torch.tensor([math.log(10)]), torch.tensor([-10.0]))
    names, valid = torch.arange(2048).view(512, 4), torch.ones(512, 4, dtype=torch.bool)
    expected = math.log1p(math.exp(10)) + 2047 * math.log1p(math.exp(-10))
    for duplicates in ("ignore", "negative"):
        loss, report = region_loss(u, t, names, valid, *pair, duplicates=duplicates)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert (report.regions, report.share) == (2048, 1)


def test_names_are_sorted_counted_and_findable() -> None:
    name = torch.tensor([[9, -4, 7], [7, 9, 2**62], [7, -4, -4]])
    valid = torch.tensor([[True, False, True], [True, True, False], [True, False, True]])
    names = unique_names(name, valid, multiple=5)
    assert names.number == 3
    assert names.ids_V.tolist() == [-4, 7, 9, 0, 0]
    assert names.counts_V.tolist() == [1, 3, 2, 0, 0]
    assert names.slots_V.tolist() == [8, 2, 0, 0, 0] == names.local_slots.tolist()
    assert names.ids_V[names.own_BR][valid].equal(name[valid])
    assert unique_names(name, valid & False).ids_V.tolist() == [0]


def test_unknown_policy_is_refused() -> None:
    case = Regions(0, 2, 2, 2)
    for form in (case.literal, case.unique):
        with pytest.raises(UsageError, match=r"ground\.duplicates"):
            form("drop", None)


def test_fp32_under_autocast() -> None:
    case = Regions(5, images=8, slots=4, names=5)
    case.u_BRD, case.table_ND = case.u_BRD.bfloat16(), case.table_ND.bfloat16()
    case.pair = [x.float() for x in case.pair]
    for form in (case.literal, case.unique):
        with torch.autocast("cpu", torch.bfloat16):
            loss = form("ignore", None)
        assert loss.dtype == torch.float32
        plain = form("ignore", None)
        assert loss.equal(plain)
