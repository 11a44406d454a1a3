"""`mtv-eval report` and `mtv-eval figures`: what they write and print, and how they fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from report_document import parse

from mtv.errors import CacheError, UsageError
from mtv.eval.commands.report import figures, report


def invoke(command: object, *words: str) -> object:
    return CliRunner().invoke(command, list(words), catch_exceptions=False, standalone_mode=False)  # type: ignore[arg-type]


def test_report_writes_one_file_and_says_what_is_in_it(made_store: Path, store_page: str, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = invoke(report, str(made_store), "--out", str(out))
    assert out.read_text(encoding="utf-8") == store_page
    assert "14 results, 18 pictures" in done.output  # type: ignore[attr-defined]
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_store_may_be_named_either_way_but_not_both(made_store: Path, tmp_path: Path) -> None:
    invoke(report, "--results", str(made_store), "--out", str(tmp_path / "a.html"))
    invoke(report, str(made_store), "--results", str(made_store), "--out", str(tmp_path / "b.html"))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    with pytest.raises(UsageError, match="two result stores"):
        invoke(report, str(made_store), "--results", str(tmp_path))


def test_a_report_of_some_models_and_without_pictures(made_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    done = invoke(report, str(made_store), "-m", "vit-good", "-t", "navi", "--max-mb", "0", "--out", str(out))
    document = parse(out.read_text(encoding="utf-8"))
    assert [r[0] for r in document.one(id="results-table").grid()[1:]] == ["vit-good"]
    assert not document.all("img")
    assert "0 pictures, 2 left out" in done.output  # type: ignore[attr-defined]


def test_errors_name_the_file(made_store: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty holds no results"):
        invoke(report, str(tmp_path / "empty"))
    with pytest.raises(CacheError, match=r"no result store at .*nowhere"):
        invoke(report, str(tmp_path / "nowhere"))
    record = next(store.glob("vit-good-*/navi/*.json"))
    record.write_text("{")
    with pytest.raises(CacheError, match=record.name):
        invoke(report, str(store), "--out", str(tmp_path / "never.html"))
    assert not (tmp_path / "never.html").exists()


def test_figures_writes_what_is_possible_and_says_what_is_not(made_store: Path, tmp_path: Path) -> None:
    done = invoke(figures, "--results", str(made_store), "--out", str(tmp_path), "--format", "png", "--format", "svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["radar.png", "radar.svg"]
    assert "not possible: Scaling curves: no results of checkpoints of mtv-train" in done.output  # type: ignore[attr-defined]


def test_figures_are_the_same_bytes_again_and_pdf_by_default(made_store: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        invoke(figures, str(made_store), "--out", str(tmp_path / name))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["radar.pdf"]
    assert (tmp_path / "a" / "radar.pdf").read_bytes() == (tmp_path / "b" / "radar.pdf").read_bytes()


@pytest.mark.parametrize("words", [["report", "--help"], ["figures", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from mtv.eval.commands import report as m; "
        f"getattr(m, {words[0]!r}).main(['--help'], standalone_mode=False); "
        "print([x for x in ('torch', 'numpy', 'matplotlib', 'pandas', 'PIL') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_a_report_imports_neither_torch_nor_pyplot(made_store: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from mtv.eval.commands import report as m; "
        f"m.report.main([{str(made_store)!r}, '--out', {str(tmp_path / 'r.html')!r}], standalone_mode=False); "
        "print([x for x in ('torch', 'pandas', 'matplotlib.pyplot') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
