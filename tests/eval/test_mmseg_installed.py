"""Which mmsegmentation is accepted, and that importing it leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mtv.errors import UsageError
from mtv.eval.mmseg import installed as door

LAZY = """
import sys, mtv, mtv.probes, mtv.eval, mtv.eval.cli, mtv.eval.tasks.segmentation, mtv.eval.mmseg.engine
print(sorted(m for m in sys.modules if m.split(".")[0] in ("mmseg", "mmcv", "mmengine")))
"""


def test_our_modules_import_nothing_of_it() -> None:
    """T15."""
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


UP = {"mmsegmentation": "1.2.2", "mmcv-lite": "2.1.0", "mmengine": "0.10.7"}
ONE = {"onedl-mmsegmentation": "1.4.2", "onedl-mmcv": "2.3.6", "onedl-mmengine": "0.10.12"}


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({}, "is not installed"),
        ({**ONE, "onedl-mmsegmentation": "1.5.0"}, "installed is onedl-mmsegmentation 1.5.0"),
        ({**UP, "mmcv-lite": "2.2.0"}, "mmcv-lite 2.2.0"),
        ({"mmsegmentation": "1.2.2", "mmcv": "2.1.0", "mmengine": "0.10.7"}, "mmcv-lite missing"),
        ({"mmsegmentation": "1.2.2", "mmcv-lite": "2.1.0"}, "mmengine missing"),
        ({**UP, "mmsegmentation": "0.30.0"}, "installed is mmsegmentation 0.30.0"),
    ],
)
def test_other_installations_are_refused(versions: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_version", versions.get)
    with pytest.raises(UsageError) as caught:
        door.installed()
    assert said in caught.value.message
    assert "pip install mtv[mmseg]" in caught.value.hint


def test_both_supported_installations_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_version", UP.get)
    assert door.installed() is door.UPSTREAM
    monkeypatch.setattr(door, "_version", ONE.get)
    assert door.installed() is door.MAINTAINED


def test_the_stand_in_for_ops_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """T16: gone after an import that fails, too; what was taken from it says why it cannot work."""
    pytest.importorskip("mmcv", reason="mmsegmentation is not installed: pip install mtv[mmseg]")
    before = sys.modules.get("mmcv.ops")
    with door._ops_stub():
        import mmcv.ops as ops

        taken = ops.sigmoid_focal_loss
        with pytest.raises(ImportError):
            import mmcv.ops.nms  # noqa: F401
        assert not hasattr(ops, "__wrapped__")
    assert sys.modules.get("mmcv.ops") is before
    with pytest.raises(RuntimeError, match=r"mmcv\.ops\.sigmoid_focal_loss is a compiled operator"):
        taken()
    monkeypatch.setattr(door, "_MODULES", ("mmseg.no_such_part",))
    with pytest.raises(UsageError, match=r"mmsegmentation 1\.2\.2 cannot be imported \(ModuleNotFoundError"):
        door.import_mmseg(door.UPSTREAM)
    assert sys.modules.get("mmcv.ops") is before
