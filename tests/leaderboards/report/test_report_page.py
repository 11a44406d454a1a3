"""The page as a whole: sound markup, nothing from outside, the numbers of the records, the same bytes every time."""

from __future__ import annotations

import base64
import getpass
import hashlib
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
from report_document import Node, parse
from report_stores import SCRIPT, SECRET, put

from mtv.errors import CacheError, UsageError
from mtv.leaderboards.formats import number_text
from mtv.leaderboards.frame import TITLES, load, metrics_of
from mtv.leaderboards.grid import decimals
from mtv.leaderboards.report.build import build_report, write_report


def page_of(root: Path, **options: object) -> str:
    return build_report(load(root), **options)[0]  # type: ignore[arg-type]


@pytest.fixture(params=["store_page", "study_page"])
def page(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_nothing_comes_from_outside(page: str) -> None:
    document = parse(page)
    for node in document.all():
        assert node.tag not in ("link", "iframe", "object", "embed", "base", "form"), node.tag
        for name, value in node.attrs.items():
            assert not name.startswith("on"), f"{node.tag} {name}"
            if name in ("src", "href", "xlink:href", "srcset", "poster", "data", "action"):
                assert value.startswith(("#", "data:image/webp;base64,", "data:image/png;base64,")), (
                    f"{node.tag} {name}={value[:80]}"
                )
    for style in [n.text for n in document.all("style")] + [n.attrs.get("style", "") for n in document.all()]:
        assert "@import" not in style
        assert re.findall(r"url\((?!#)", style) == []


def test_the_policy_allows_our_script_and_no_other(page: str) -> None:
    document = parse(page)
    policy = document.one("meta", **{"http-equiv": "Content-Security-Policy"}).attrs["content"]
    digest = base64.b64encode(hashlib.sha256(document.one("script").text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_ids_headings_and_alternative_texts(page: str) -> None:
    document = parse(page)
    ids = [n.attrs["id"] for n in document.all() if "id" in n.attrs]
    assert len(set(ids)) == len(ids), sorted({i for i in ids if ids.count(i) > 1})
    for node in document.all():
        for name in ("href", "xlink:href", "aria-labelledby", "for"):
            value = node.attrs.get(name, "")
            if value.startswith("#") or name in ("aria-labelledby", "for"):
                assert not value or value.lstrip("#") in ids, f"{node.tag} {name}={value}"
        for reference in re.findall(r"url\(#([^)]+)\)", " ".join(node.attrs.values())):
            assert reference in ids
    levels = [int(n.tag[1]) for n in document.all() if re.fullmatch("h[1-6]", n.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), levels
    assert all(n.attrs.get("alt", "").strip() for n in document.all("img"))
    svgs = document.all("svg")
    assert svgs
    assert all(n.attrs["role"] == "img" and n.attrs["aria-label"].strip() for n in svgs)
    assert all(n.one("caption").text.strip() for n in document.all("table"))
    assert all(t.attrs["scope"] in ("col", "row", "rowgroup") for t in document.all("th"))


def test_a_phone_is_told_the_width_and_a_printer_the_layout(page: str) -> None:
    document = parse(page)
    assert "width=device-width" in document.one("meta", name="viewport").attrs["content"]
    assert "@media print" in document.one("style").text
    for table in document.all("table"):
        assert any(table in frame.children for frame in document.all(class_="scroll"))


def main_table(page: str) -> tuple[list[str], dict[str, list[str]]]:
    """Headings and, by model, cells of the first table."""
    grid = parse(page).one(id="results-table").grid()
    return grid[0], {row[0]: row[1:] for row in grid[1:]}


def test_values_are_those_of_the_records(made_store: Path, store_page: str) -> None:
    heads, rows = main_table(store_page)
    checked = 0
    for path in sorted(made_store.glob("*/*/*.json")):
        record = json.loads(path.read_text())
        if record["status"] == "failed":
            continue
        for key, metric in record["metrics"].items():
            if not metric["headline"]:
                continue
            column = next(k for k, h in enumerate(heads) if h.startswith(TITLES[key]))
            cells = [r[column - 1] for name, r in rows.items() if name == record["model"]["alias"]]
            shown = [re.match(r"−?\d+\.\d+", c) for c in cells]
            expected = number_text(metric["value"], decimals(metric["unit"]))
            assert expected in [m[0] for m in shown if m] or record["status"] == "partial", (key, cells)
            checked += 1
    assert checked >= 12


def test_every_metric_of_every_task_is_there(made_store: Path, store_page: str) -> None:
    document = parse(store_page)
    for stored in load(made_store, models=["vit-good"]):
        if stored.record.status == "failed":
            continue
        task = stored.record.task
        frames = [f for f in document.all(class_="table") if re.fullmatch(f"task-{task}-\\d-metrics", f.attrs["id"])]
        grids = [f.grid() for f in frames]
        grid = next(g for g in grids if "vit-good" in g[0])
        rows = {r[0].split(" ")[0]: r for r in grid[1:]}
        for key, metric in metrics_of(stored.record).items():
            cell = rows[key.split("/")[1]][grid[0].index("vit-good")]
            assert cell.startswith(number_text(metric.value or 0, decimals(metric.unit))), (key, cell)


def test_results_that_differ_in_protocol_are_marked_and_kept_apart(store_page: str) -> None:
    heads, rows = main_table(store_page)
    column = next(k for k, h in enumerate(heads) if h.startswith("ImageNet")) - 1
    assert "limit 30" in rows["limited"][column]
    assert "limit: none vs 30" in parse(store_page).one(id="results-table").text
    section = next(s for s in parse(store_page).all("section", class_="task") if s.one("h3").text == "imagenet")
    assert "2 protocols or data sets" in section.text
    tables = [f.grid()[0] for f in section.all(class_="table") if f.attrs["id"].endswith("metrics")]
    assert [("limited" in heads, "vit-good" in heads) for heads in tables] == [(False, True), (True, False)]


def test_failures_and_missing_cells_have_reasons(store: Path) -> None:
    rows = parse(page_of(store, unavailable={"vqa": "task not available"})).one(id="gaps-table").grid()[1:]
    found = {(r[0], r[1]): r[2:] for r in rows}
    assert found["vit-good", "coco"][0] == "failed"
    assert "no file" in found["vit-good", "coco"][1]
    assert found["vit-bad", "coco"] == ["missing", "not run"]
    assert found["vit-bad", "vqa"] == ["missing", "task not available"]
    assert found["limited", "imagenet"] == ["partial", "limit 30"]


def test_markup_in_records_is_words(store: Path) -> None:
    page = page_of(store, title="<script>alert(3)</script>")
    document = parse(page)
    assert len(document.all("script")) == 1
    assert "alert" not in document.one("script").text
    assert document.one("h1").text == "<script>alert(3)</script>"
    assert not any("onerror" in n.attrs for n in document.all())
    assert SCRIPT in main_table(page)[1]
    assert "among <five> & fewer" in document.text
    assert "onerror=alert(2)" in document.one(id="gaps-table").text


def test_the_page_does_not_tell_whose_machine_it_was(store: Path, tmp_path: Path) -> None:
    page = page_of(store)
    assert "…/val.txt" in parse(page).text
    for private in (SECRET, "/ada", "secret-project", str(tmp_path), str(Path.home())):
        assert private not in re.sub(r"base64,[^\"]*", "", page), private
    assert not re.search(rf"/(home|Users|{re.escape(getpass.getuser())})/", page)


def test_the_same_store_gives_the_same_bytes_wherever_it_lies(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "elsewhere" / "other name")
    assert page_of(store) == page_of(tmp_path / "elsewhere" / "other name")


def test_speed_memory_and_cache_of_every_result(made_store: Path, store_page: str) -> None:
    heads, *rows = parse(store_page).one(id="speed-table").grid()
    results = [s for s in load(made_store) if s.record.status != "failed"]
    # A failure of this store says how long it took, too.
    assert len(rows) == len(results) + 1
    row = dict(zip(heads, rows[0], strict=True))
    assert (row["images/s"], row["total [s]"], row["extract [s]"]) == ("123.4", "4.2", "2.5")
    assert (row["peak memory [MB]"], row["cache hits"], row["cache misses"]) == ("1723", "7", "53")


def test_a_study_brings_the_tables_of_the_paper(study_page: str) -> None:
    document = parse(study_page)
    table3 = document.one(id="table3").grid()
    names = [r[0] for r in table3]
    assert names[1].startswith("mini, 32,000 samples")
    assert names[2] == "VL"
    assert document.one(id="table4").grid()[1:]
    titles = [h.text for h in document.all("h3")]
    for words in ("Models on every shared task", "Objectives: ", "Synergy", "Attribution", "Scaling"):
        assert any(t.startswith(words) for t in titles), (words, titles)
    assert "VL + SSL + Ground + Depth; recipe mini" in document.one(id="models-table").text


def test_without_a_study_the_page_says_why_figures_are_missing(store_page: str) -> None:
    document = parse(store_page)
    assert not document.all(id="table3")
    assert "Scaling curves: no results of checkpoints of mtv-train." in document.text


def test_a_missing_sample_table_is_named_and_the_rest_is_there(store: Path) -> None:
    gone = next(store.glob("vit-bad-*/navi/*.samples.parquet"))
    gone.unlink()
    document = parse(page_of(store))
    rows = {(r[0], r[1]): r[2:] for r in document.one(id="gaps-table").grid()[1:]}
    assert rows["vit-bad", "navi"][0] == "incomplete"
    heads = document.one(id="task-navi-0-by-0").grid()[0]
    assert "vit-good" in heads
    assert "vit-bad" not in heads


def test_a_study_with_a_missing_sample_table_still_has_its_other_parts(study_store: Path) -> None:
    next(study_store.glob("vl-ssl-s0-32000-*/imagenet/*.samples.parquet")).unlink()
    document = parse(page_of(study_store))
    assert document.all(class_="warning")
    assert document.one(id="results-table").grid()[1:]


def test_no_results_are_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results to report"):
        build_report([])
    with pytest.raises(CacheError, match="no result store at"):
        load(tmp_path / "nowhere")


def test_a_store_of_failures_alone_makes_a_page(tmp_path: Path) -> None:
    put(tmp_path, "vit", "imagenet", error="no data")
    document = parse(page_of(tmp_path))
    assert document.one(id="gaps-table").grid()[1][1:3] == ["imagenet", "failed"]
    assert document.one(id="results-table").grid()[1][1] == "failed"


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_report(path, "old")

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CacheError, match=r"report\.html: No space left"):
        write_report(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_closed_parts_are_details_with_a_summary(page: str) -> None:
    details = parse(page).all("details")
    assert details
    for part in details:
        first = next(c for c in part.children if isinstance(c, Node))
        assert first.tag == "summary"
        assert first.text.strip()
