"""Every format of one synthetic store against a stored rendering, and the properties that renderings must have.

After a deliberate change: `MTV_UPDATE_GOLDEN=1 pytest tests/leaderboards`, then read the difference.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mtv.errors import UsageError
from mtv.leaderboards.formats import FORMATS, number_text, render
from mtv.leaderboards.frame import load
from mtv.leaderboards.grid import Cell, Column, Row, Table
from mtv.leaderboards.table import build_table

GOLDEN = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("MTV_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("fmt", FORMATS)
def test_table_equals_its_stored_rendering(store: Path, fmt: str) -> None:
    check_golden(f"table.{fmt}.txt", render(build_table(load(store)), fmt))


def one(cell: Cell, **column: str) -> Table:
    return Table(
        title="T_1 & 50%",
        head="model",
        columns=(Column(key="k", title=column.get("title", "x_y"), label=column.get("label", "")),),
        rows=(Row(name="a_b|c<d>", cells=(cell,)),),
    )


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (Cell(value=57.04, ci95=(55.7, 58.4)), "57.0 ± 1.4"),
        (Cell(value=57.0, ci95=(56.96, 57.04)), "57.0 ± 0.0"),
        (Cell(value=0.11, ci95=(0.05, 0.31), decimals=2), "0.11 −0.06 +0.20"),
        (Cell(value=100.0, ci95=(96.3, 100.0)), "100.0 −3.7 +0.0"),
        (Cell(value=5.0, ci95=(6.0, 7.0)), "5.0 [6.0, 7.0]"),
        (Cell(value=1.23, signed=True, decimals=2, ci95=(-0.2, 2.66)), "+1.23 ± 1.43"),
        (Cell(value=-0.004, signed=True, decimals=2), "0.00"),
        (Cell(value=-1.5, signed=True), "−1.5"),
        (Cell(text="not run"), "not run"),
        (Cell(value=3.0, label="limit 100", marks=("a", "b")), "3.0 (limit 100) [a,b]"),
        (Cell(value=3.0, best=True), "3.0*"),
    ],
)
def test_cells_say_what_they_know(cell: Cell, shown: str) -> None:
    line = next(x for x in render(one(cell)).splitlines() if "a_b" in x)
    assert line.split("a_b|c<d>")[1].strip() == shown


def test_number_text_uses_a_minus_sign_and_no_negative_zero() -> None:
    assert number_text(-0.04, 1) == "0.0"
    assert number_text(-2, 0) == "−2"
    assert number_text(0.4691, 3) == "0.469"


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="html"):
        render(one(Cell(value=1)), "htm")


def test_csv_and_json_carry_full_precision_and_identity(store: Path) -> None:
    table = build_table(load(store))
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    top1 = next(r for r in rows if r["model"] == "mtv-b16" and r["metric"] == "imagenet/top1")
    assert (float(top1["value"]), float(top1["lo"]), float(top1["hi"])) == (69.52, 69.12, 69.92)
    assert top1["protocol"].startswith("imagenet/paper#")
    assert len(top1["data_fingerprint"]) == 64
    body = json.loads(render(table, "json"))
    assert [r["metric"] for r in body["rows"]] == [r["metric"] for r in rows]
    assert {tuple(r) for r in body["rows"]} == {tuple(rows[0])}
    assert any("test samples only" in n["text"] for n in body["notes"])


def test_tex_is_balanced_and_escaped(store: Path) -> None:
    text = render(build_table(load(store), published="all"), "tex")
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert r"\toprule" in text
    assert r"\bottomrule" in text
    body = text.split("\n", 1)[1]
    assert not re.search(r"(?<!\\)[%#]", body)
    assert not re.search(r"(?<!\\)_(?!\{)", body)
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    for line in text.splitlines():
        if line.endswith(r" \\"):
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
    # What inputenc does not know must not reach the file.
    assert not set(text) & set("→↓±−×≤≥–…")


def test_markdown_has_one_cell_per_column_whatever_names_hold(store: Path) -> None:
    lines = render(build_table(load(store)), "md").splitlines()
    grid = [x for x in lines if x.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", x)) for x in grid}) == 1
    assert r"a\_b\|c\<d\>" in render(one(Cell(value=1)), "md")


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += 1
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_well_formed_ascii_and_escaped(store: Path) -> None:
    text = render(build_table(load(store), published="all"), "html")
    parser = _Balance()
    parser.feed(text)
    assert parser.open == []
    assert len(set(parser.cells)) == 1
    assert text.isascii()
    assert "a_b|c&lt;d&gt;" in render(one(Cell(value=1)), "html")


def test_rich_fits_a_terminal_and_uses_bold_in_colour(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = build_table(load(store))
    text = render(table, "rich", color=True, width=100)
    assert "\x1b[1m" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 100
    assert "69.5*" not in plain
    assert "\x1b" not in render(table, "rich")
