"""What the store costs: bytes per value on disk, and memory that does not grow with the set.

Real shards have 64 MB, of which sixteen are mapped at a time; here they have 1 MB.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from feature_world import PngPreparation, TinyEncoder, request_for, shards_in, write_pictures

GROWING = """
import sys
from pathlib import Path

import torch
from feature_world import PngPreparation, TinyEncoder, options_for, request_for, write_pictures
from mtv.draws import Draws
from mtv.eval.features import writer
from mtv.eval.features.api import FeatureProvider


def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024


torch.set_num_threads(1)
writer.FLUSH_BYTES = 1 << 20
n, folder = int(sys.argv[1]), Path(sys.argv[2])
files = write_pictures(folder / "pictures", 4, side=128)
files = {f"{k}@v{i}": files[k] for i in range(n // 4) for k in files}
request = request_for(files, preparation=PngPreparation(128), layers=(2,))
before = memory("VmRSS")
features = FeatureProvider(TinyEncoder(width=128), options_for(folder / "cache", batch_size=8)).get(request)
ids = list(files)
for epoch in range(2):
    order = Draws("order", epoch).shuffled(ids)
    for start in range(0, n, 8):
        assert features.stack(order[start : start + 8], "layer2").shape == (8, 16, 16, 128)
stored = sum(p.stat().st_size for p in (folder / "cache").rglob("*.safetensors"))
print(stored >> 20, memory("VmHWM") - before)
"""


def grown(n: int, folder: Path) -> tuple[int, int]:
    """MB on disk, and by how many MB the resident memory of a fresh process rises that makes and reads `n` rows."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", GROWING, str(n), str(folder)],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stored, memory = map(int, done.stdout.split())
    return stored, memory


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    small, large = grown(128, tmp_path / "small"), grown(1024, tmp_path / "large")
    assert (small[0], large[0]) == (pytest.approx(8, abs=1), pytest.approx(64, abs=1))
    assert large[1] - small[1] < 28


def test_half_precision_costs_less_than_a_byte_per_value_beside_its_own_two(provider, tmp_path, cache):
    files = write_pictures(tmp_path / "p", 12)
    request = request_for(files, preparation=PngPreparation(128), layers=(2,))
    features = provider(TinyEncoder(width=32)).get(request)
    values = sum(x.numel() for i in features.ids for x in features.get(i).values())
    stored = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file())
    assert list(shards_in(cache))
    assert 2 * values < stored <= 3 * values
