"""Registry, full check and the texts that the command line prints."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtv.errors import DataError, UsageError
from mtv.eval.datasets.base import CheckReport, ClassificationSet, FileRef, fingerprint_of
from mtv.eval.datasets.common import bad_headers
from mtv.eval.datasets.describe import describe_all, describe_info, describe_report
from mtv.eval.datasets.full_check import full_check, stored_outcome
from mtv.eval.datasets.registry import READERS, check_dataset, open_dataset, reader_info

WNIDS = ("n01440764", "n01443537", "n01484850")


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i, wnid in enumerate(WNIDS):
        picture(tmp_path / "data" / "imagenet" / "val" / wnid / f"{i}.JPEG", i)
    return tmp_path / "data"


@pytest.mark.parametrize("name", READERS)
def test_every_reader_describes_itself(name: str) -> None:
    info = reader_info(name)
    assert info.name == name
    assert info.default_split in info.splits
    assert info.expected or name == "pretrain"  # a corpus of one's own has no full extent
    assert all(v > 0 for v in info.expected.values())
    assert "http" not in info.how_to_get
    assert 1 <= len(info.how_to_get.splitlines()) <= 3
    assert len(info.licence.splitlines()) == 1
    for option in info.options.values():
        assert option.choices
        assert option.help
    text = describe_info(info)
    assert info.licence in text
    assert all(line.strip() in text for line in info.layout.splitlines())
    assert text in describe_all()


@pytest.mark.parametrize("name", READERS)
def test_readers_refuse_an_empty_folder_as_missing(name: str, tmp_path: Path) -> None:
    report = check_dataset(name, tmp_path)
    assert report.verdict == "missing"
    assert report.name == name
    assert report.repair
    with pytest.raises(DataError) as error:
        open_dataset(name, tmp_path)
    assert error.value.exit_code == 3
    assert str(error.value) == describe_report(report)
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean imagenet"):
        reader_info("imagnet")
    with pytest.raises(UsageError, match="unknown imagenet split 'train'"):
        check_dataset("imagenet", tmp_path, split="train")
    with pytest.raises(UsageError, match="data set imagenet has no option 'captions'"):
        open_dataset("imagenet", tmp_path, captions="all")


def test_quick_check_imports_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from mtv.eval.datasets.registry import check_dataset, READERS;"
        "[check_dataset(n, Path('.')) for n in ('imagenet', 'coco', 'flickr8k', 'flickr30k')];"
        "sys.exit(any(m in sys.modules for m in ('torch', 'timm', 'open_clip', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False).returncode == 0


def test_registry_targets_exist() -> None:
    for target in READERS.values():
        module, _, attribute = target.partition(":")
        loaded = importlib.import_module(module)
        reader = getattr(loaded, attribute) if attribute else loaded
        assert callable(reader.inspect)


def test_full_check_hashes_bytes_and_is_kept(data: Path, tmp_path: Path) -> None:
    cache, calls = tmp_path / "cache", []
    quick = check_dataset("imagenet", data)
    before = sorted(p.name for p in data.rglob("*"))

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    report = check_dataset("imagenet", data, full=True, cache=cache, progress=progress)
    assert report.checked == "full"
    assert report.verdict == quick.verdict
    assert report.label == quick.label
    assert report.fingerprint != quick.fingerprint
    assert calls[-1] == (3, 3)
    assert sorted(p.name for p in data.rglob("*")) == before
    stored = json.loads((cache / f"{quick.fingerprint}.json").read_text())
    assert stored["full_fingerprint"] == report.fingerprint
    # the second time nothing is decoded
    calls.clear()
    assert check_dataset("imagenet", data, full=True, cache=cache, progress=progress) == report
    assert calls == []
    dataset = open_dataset("imagenet", data)
    outcome = stored_outcome(dataset, cache)
    assert outcome is not None
    assert outcome.files == 3
    # other bytes under the same names: the quick fingerprint stays, the full one changes
    picture(data / "imagenet" / "val" / WNIDS[0] / "0.JPEG", 77)
    assert stored_outcome(open_dataset("imagenet", data), cache) is None
    changed = check_dataset("imagenet", data, full=True, cache=cache)
    assert calls == []
    assert changed.fingerprint != report.fingerprint
    assert check_dataset("imagenet", data).fingerprint == quick.fingerprint


def test_full_fingerprint_is_independent_of_location_workers_and_cache(data: Path, tmp_path: Path) -> None:
    import shutil

    first = check_dataset("imagenet", data, full=True)
    shutil.copytree(data, tmp_path / "elsewhere" / "deeper")
    second = check_dataset("imagenet", tmp_path / "elsewhere" / "deeper", full=True, workers=1, cache=tmp_path / "c")
    assert first.fingerprint == second.fingerprint


def test_full_check_lists_truncated_and_empty_files(data: Path, tmp_path: Path) -> None:
    path = data / "imagenet" / "val" / WNIDS[1] / "1.JPEG"
    path.write_bytes(path.read_bytes()[:-200])
    assert check_dataset("imagenet", data).verdict == "ok-but"  # the header is there
    report = check_dataset("imagenet", data, full=True, cache=tmp_path / "cache")
    assert report.verdict == "wrong"
    assert "1 of 3 files cannot be decoded: imagenet/val/n01443537/1.JPEG" in report.problems[0]
    assert "Copy these files again" in report.repair
    # the kept outcome refuses as well
    assert check_dataset("imagenet", data, full=True, cache=tmp_path / "cache").verdict == "wrong"


def test_cache_inside_the_data_root_is_refused(data: Path) -> None:
    with pytest.raises(UsageError, match="lies inside the data root"):
        check_dataset("imagenet", data, full=True, cache=data / "imagenet" / "cache")


def test_damaged_cache_entry_is_made_again(data: Path, tmp_path: Path) -> None:
    report = check_dataset("imagenet", data, full=True, cache=tmp_path / "cache")
    entry = next((tmp_path / "cache").iterdir())
    for text in ("{", "[]", '{"schema": 99}', '{"schema": 1, "state": 3}'):
        entry.write_text(text)
        assert check_dataset("imagenet", data, full=True, cache=tmp_path / "cache") == report
        assert json.loads(entry.read_text())["files"] == 3


def with_extra(data: Path, extra: dict[str, FileRef]) -> ClassificationSet:
    path = data / "imagenet" / "val" / WNIDS[0] / "0.JPEG"
    report = CheckReport(name="x", verdict="ok", fingerprint=fingerprint_of([("a", "b")]))
    return ClassificationSet(
        name="x",
        split="s",
        report=report,
        images={"a": FileRef(path=path, name="0.JPEG")},
        extra_files=extra,
        labels=np.zeros(1, np.int64),
        classes=("b",),
        class_indices=np.zeros(1, np.int64),
    )


def test_extra_files_are_decoded_as_they_are(data: Path) -> None:
    depth = data / "depth.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(depth)
    dataset = with_extra(data, {"a": FileRef(path=depth, name="depth.png")})
    good = full_check(dataset, data=data)
    assert good.verdict == "ok"
    assert good.fingerprint != full_check(with_extra(data, {}), data=data).fingerprint
    depth.write_bytes(depth.read_bytes()[:40])
    bad = full_check(dataset, data=data)
    assert bad.verdict == "wrong"
    assert "depth.png" in bad.problems[0]
    gone = full_check(with_extra(data, {"a": FileRef(path=data / "absent.bin", name="absent.bin")}), data=data)
    assert "absent.bin" in gone.problems[0]


def test_many_files_go_through_processes(data: Path) -> None:
    path = data / "imagenet" / "val" / WNIDS[0] / "0.JPEG"
    broken = data / "broken.JPEG"
    broken.write_bytes(path.read_bytes()[:300])
    images = {str(i): FileRef(path=path, name=f"{i}.JPEG") for i in range(600)}
    images["broken"] = FileRef(path=broken, name="broken.JPEG")
    report = CheckReport(name="x", verdict="ok", fingerprint="f")
    dataset = ClassificationSet(
        name="x",
        split="s",
        report=report,
        images=images,
        labels=np.zeros(601, np.int64),
        classes=("b",),
        class_indices=np.zeros(1, np.int64),
    )
    calls: list[tuple[int, int]] = []
    parallel = full_check(dataset, data=data, workers=2, progress=lambda done, total: calls.append((done, total)))
    assert parallel == full_check(dataset, data=data, workers=1)
    assert parallel.verdict == "wrong"
    assert "1 of 601 files" in parallel.problems[0]
    assert calls[-1] == (601, 601)
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)


def test_bad_headers_reads_members_and_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "b.tar").write_bytes(b"junk" + b"RIFF\x00\x00\x00\x00WEBPmore")
    refs = {
        "a": FileRef(path=tmp_path / "a.jpg", name="a.jpg"),
        "b": FileRef(path=tmp_path / "b.tar", name="b.tar/x.webp", offset=4, size=16),
        "c": FileRef(path=tmp_path / "b.tar", name="b.tar/y.webp", offset=0, size=16),
        "d": FileRef(path=tmp_path / "b.tar", name="b.tar/z.webp", offset=4, size=0),
        "e": FileRef(path=tmp_path / "gone.jpg", name="gone.jpg"),
    }
    assert bad_headers(refs) == ["b.tar/y.webp", "b.tar/z.webp", "gone.jpg"]


def test_report_text_has_all_parts(tmp_path: Path) -> None:
    report = CheckReport(
        name="coco",
        verdict="wrong",
        root=tmp_path / "coco",
        layout="Karpathy split file",
        split="karpathy-test",
        found={"images": 79, "captions": 395},
        expected={"images": 5000, "captions": 25010},
        label="subset (79 of 5000)",
        fingerprint="abc",
        problems=("first problem", "second problem"),
        repair="Do this.\nThen that.",
    )
    text = describe_report(report, data=tmp_path)
    assert text.splitlines() == [
        "coco (karpathy-test): WRONG [subset (79 of 5000)]",
        "  root     coco",
        "  layout   Karpathy split file",
        "  found    79 of 5,000 images, 395 of 25,010 captions",
        "  data     abc (quick check)",
        "  problem  first problem",
        "  problem  second problem",
        "  repair   Do this.",
        "           Then that.",
    ]
    assert str(tmp_path) in describe_report(report)


def test_real_imagenet_sample(real_data: Path) -> None:
    if not (real_data / "imagenet" / "val").is_dir():
        pytest.skip("no imagenet folder in the real data")
    dataset = open_dataset("imagenet", real_data)
    assert isinstance(dataset, ClassificationSet)
    assert dataset.report.label == "sample, not val (1000 of 50000)"
    assert dataset.report.found == {"images": 1000, "classes": 1000}
    np.testing.assert_array_equal(dataset.class_indices[dataset.labels], np.arange(1000))
    synsets = (real_data / "imagenet" / "imagenet_synsets.txt").read_text().split()
    assert dataset.classes == tuple(synsets)
    assert all(key.startswith(f"{synsets[i]}/{synsets[i]}_") for i, key in enumerate(dataset.images))
