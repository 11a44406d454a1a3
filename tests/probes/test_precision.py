"""Scoring precision: flags off inside, exactly restored outside; normalisation in float32."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mtv.errors import NumericalError
from mtv.probes import precision
from mtv.probes.precision import check_finite, fp32_matmul, l2_normalize

# Runs in its own process: the untouched cuDNN default cannot be written back once a test has set it.
RESTORE_SCRIPT = """
import torch
from mtv.probes.precision import fp32_matmul
get, put = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
PARENTS = [("generic", "all"), ("cuda", "all"), ("mkldnn", "all")]
LEAVES = [(b, o) for b in ("cuda", "mkldnn") for o in ("matmul", "conv", "rnn")]

def attempt(f):
    try:
        return f()
    except RuntimeError:
        return "raises"

def legacy():
    b = torch.backends
    return [attempt(f) for f in (torch.get_float32_matmul_precision, lambda: b.cuda.matmul.allow_tf32,
                                 lambda: b.cudnn.allow_tf32, lambda: b.mkldnn.allow_tf32)]

def observe():
    # effective values, stored values (parents lifted), and what each leaf does under other parents
    seen = [legacy(), [get(*k) for k in PARENTS + LEAVES]]
    stored = []
    for k in PARENTS:
        stored.append(get(*k)); put(*k, "none")
    seen += [stored, [get(*k) for k in LEAVES], legacy()]
    for value in ("ieee", "tf32"):
        put("generic", "all", value); seen.append([get(*k) for k in LEAVES]); put("generic", "all", "none")
    for k, v in zip(PARENTS, stored):
        put(*k, v)
    return seen

settings = [None, ("cuda", "matmul", "tf32"), ("cuda", "matmul", "ieee"), ("mkldnn", "matmul", "bf16"),
            ("cuda", "all", "tf32"), ("mkldnn", "all", "bf16"), ("cuda", "conv", "ieee"), ("cuda", "rnn", "tf32")]
n = 0
for mode in (None, "high", "medium", "highest"):
    for parent in ("none", "tf32", "ieee"):
        for setting in settings:
            if mode:
                torch.set_float32_matmul_precision(mode)
            put("generic", "all", parent)
            if setting:
                put(*setting)
            before = observe()
            try:
                with fp32_matmul(), fp32_matmul():
                    assert all(get(*k) == "ieee" for k in LEAVES if k != ("mkldnn", "conv") and k != ("mkldnn", "rnn"))
                    assert torch.get_float32_matmul_precision() == "highest"
                    assert not torch.backends.cuda.matmul.allow_tf32
                    raise KeyError
            except KeyError:
                pass
            after = observe()
            assert before == after, (mode, parent, setting, before, after)
            n += 1
            if setting:
                put(*setting[:2], "none")
print(n)
"""


@pytest.mark.skipif(not hasattr(torch._C, "_set_fp32_precision_setter"), reason="torch before 2.9: legacy flags only")
def test_every_stored_setting_comes_back_also_after_an_exception() -> None:
    done = subprocess.run([sys.executable, "-c", RESTORE_SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 4 * 3 * 8


def test_z14_reduced_precision_of_the_caller_does_not_reach_the_product() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(300, 500, generator=g), torch.randn(500, 200, generator=g)
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (a @ b).dtype == torch.bfloat16
            with fp32_matmul():
                inside = a @ b
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert inside.dtype == torch.float32
    assert (inside - exact).abs().max() < 1e-4  # one bf16 pass would be off by 0.1


def test_legacy_switches_are_restored_where_the_new_ones_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_new_api", lambda: False)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        inside = []

        @fp32_matmul()
        def fails() -> None:
            inside.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            raise KeyError

        with pytest.raises(KeyError):
            fails()
        assert inside == [("highest", False)]
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32 is True
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_fp32_matmul_as_decorator() -> None:
    @fp32_matmul()
    def mode() -> str:
        return torch.get_float32_matmul_precision()

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert (mode(), mode(), torch.get_float32_matmul_precision()) == ("highest", "highest", "high")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_l2_normalize_casts_first(dtype: torch.dtype) -> None:
    x = torch.full((3, 512), 200.0).to(dtype)  # the squared norm, 2e7, overflows fp16
    out = l2_normalize(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.full((3, 512), 512**-0.5), rtol=1e-6, atol=0)


def test_l2_normalize_zero_row_and_epsilon() -> None:
    out = l2_normalize(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3e-10, 4e-10]]))
    torch.testing.assert_close(out, torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.03, 0.04]]))


def test_non_finite_rows_are_named() -> None:
    x = torch.zeros(5, 2, 3)
    x[3, 1, 2] = float("nan")
    x[4, 0, 0] = float("inf")
    with pytest.raises(NumericalError, match=r"pooled features of sample 'd' are not finite \(2 of 5 rows"):
        check_finite(x, list("abcde"), "pooled features")
    with pytest.raises(NumericalError, match="text features of row 3"):
        l2_normalize(x[:, 1], what="text features")
    check_finite(x[:3])
    check_finite(torch.zeros(0, 4))


def test_norm_that_overflows_is_an_error() -> None:
    with pytest.raises(NumericalError, match="norms of features of sample 'b'"):
        l2_normalize(torch.tensor([[1.0, 0.0], [3e38, 3e38]]), ids=["a", "b"])
