"""`mtv-eval table 1|3|4|5|6`: formats, wrong combinations of options, and what it may import."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from paper_store import PATH, additive, lattice, training, write

from mtv.eval.commands.paper_table import NUMBERS, OPTIONS, TAKES, paper_table
from mtv.eval.commands.results import table
from mtv.leaderboards.formats import FORMATS, render
from mtv.leaderboards.grid import Table

GOLDEN = Path(__file__).parent / "golden" / "paper_table3.md.txt"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the paper's recipe with two seeds and gaps, and a model with a depth head; read only."""
    root = tmp_path_factory.mktemp("command") / "results"
    paper = {"recipe": "mtv_b16_10m", "samples": 48_828 * 4096}
    lattice(root, additive, seeds=(0, 1), keys=["imagenet/top1"], **paper)
    lattice(root, additive, subsets=PATH, keys=["coco/t2i_r1", "coco/i2t_r1", "nyuv2/rmse"], **paper)
    write(root, None, {"rel_kitti/absrel_depth": 9.0}, name="mtv-b16", alias="mtv-b16", image={"size": 224})
    write(root, training(samples=64), {"imagenet/top1": 20.0}, name="whole")
    return root


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(table, [str(a) for a in args])


@pytest.fixture(scope="module")
def built(results: Path) -> dict[str, Table]:
    """Every table of the paper."""
    return {n: paper_table(n, results_dir=results) for n in NUMBERS}


class _Rows(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += int(dict(attrs).get("colspan") or 1)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("number", NUMBERS)
def test_every_table_in_every_format(number: str, built: dict[str, Table], results: Path) -> None:
    texts = {fmt: render(built[number], fmt) for fmt in FORMATS}
    for fmt, text in texts.items():
        assert str(results.parent) not in text
        if fmt not in ("csv", "json"):
            assert f"Table {number}. " in text
    lines = [x for x in texts["md"].splitlines() if x.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", x)) for x in lines}) == 1
    parser = _Rows()
    parser.feed(texts["html"])
    assert parser.open == []
    assert len(set(parser.cells)) == 1
    assert texts["html"].isascii()
    body = json.loads(texts["json"])
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert len(rows) == len(body["rows"]) > 0
    assert {tuple(r) for r in body["rows"]} == {tuple(rows[0])}
    assert {r["table"] for r in rows} == {number}


@pytest.mark.parametrize("number", NUMBERS)
def test_latex_is_balanced_escaped_and_as_wide_as_it_says(number: str, built: dict[str, Table]) -> None:
    text = render(built[number], "tex")
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    body = text.split("\n", 1)[1]
    assert not re.search(r"(?<!\\)[%#]", body)
    assert not re.search(r"(?<!\\)_(?!\{)", re.sub(r"\$_\{", "", body))
    width = len(text.split(r"\begin{tabular}{")[1].split("}")[0])
    for line in body.splitlines():
        if line.endswith(r" \\"):
            whole = re.match(r"\\multicolumn\{(\d+)\}", line)
            assert (int(whole[1]) if whole else len(re.findall(r"(?<!\\)&", line)) + 1) == width, line
    groups = text.count(r"\multicolumn")
    assert groups >= 1
    assert text.count(r"\midrule") == groups
    assert not set(text) & set("→↓±−×≤≥–…Δδ")


def test_table_3_equals_its_stored_rendering(results: Path) -> None:
    """After a deliberate change: `MTV_UPDATE_GOLDEN=1 pytest tests/leaderboards`, then read the difference."""
    answer = call("3", "--results", results, "--format", "md")
    text = answer.stdout.removesuffix("\n")
    if os.environ.get("MTV_UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8") == text


def test_without_a_number_it_is_the_table_of_models_by_tasks(results: Path) -> None:
    answer = call("--results", results, "--format", "md")
    assert answer.exit_code == 0
    assert answer.stdout.startswith("**Results**\n\n| model | ImageNet zero-shot top-1")


@pytest.mark.parametrize(
    ("args", "option", "belongs"),
    [
        (["--order", "ssl,ground,depth"], "--order", "`table 3`"),
        (["--beside", "B/16:10M"], "--beside", "`table 1`, `table 3`, `table 4`"),
        (["--bench", "b.json"], "--bench", "`table 1`"),
        (["3", "--bench", "b.json"], "--bench", "`table 1`"),
        (["4", "--order", "ssl,ground,depth"], "--order", "`table 3`"),
        (["5", "--beside", "B/16:10M"], "--beside", "`table 1`, `table 3`, `table 4`"),
        (["3", "-t", "coco"], "--task", "`table` without a number"),
        (["6", "--all-metrics"], "--all-metrics", "`table` without a number"),
        (["5", "--published", "all"], "--published", "`table` without a number"),
        (["1", "--results", "results"], "--results", "`table` without a number, `table 3`"),
        (["1", "-m", "clip-b16"], "--model", "`table` without a number, `table 3`"),
    ],
)
def test_an_option_that_does_not_belong_is_named(args: list[str], option: str, belongs: str) -> None:
    answer = call(*args)
    assert answer.exit_code != 0
    message = str(answer.exception)
    assert message.startswith(f"{option} does not apply to ")
    assert f"It belongs to {belongs}" in message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["3", "--order", "ssl"], "--order ssl: name each of ssl, ground, depth once"),
        (["4", "--beside", "B/32:10M"], "--beside B/32:10M: no such block"),
        (["1", "--beside", "B/16:10M"], "--beside B/16:10M: Table 1 of the paper has one model"),
        (["1", "--bench", "nothing.json"], "--bench nothing.json: cannot be read"),
    ],
)
def test_wrong_values_name_their_option(args: list[str], message: str) -> None:
    answer = call(*args)
    assert message in str(answer.exception)


def test_table_2_is_no_choice() -> None:
    answer = call("2")
    assert answer.exit_code == 2
    assert "'1', '3', '4', '5', '6'" in answer.output


def test_every_option_belongs_somewhere_and_is_one_of_the_command() -> None:
    params = {p.name for p in table.params}
    assert set(OPTIONS) == {n for names in TAKES.values() for n in names} == params - {"number", "fmt"}
    spelled = {p.name: [*p.opts, *p.secondary_opts] for p in table.params}
    for name, option in OPTIONS.items():
        assert option in spelled[name]


def test_order_and_beside_reach_the_table(tmp_path: Path) -> None:
    root = lattice(tmp_path / "r", additive, subsets=[*PATH, ("vl", "depth")], keys=["imagenet/top1"])
    answer = call("3", "--results", root, "--order", "depth,ssl,ground", "--beside", "L/16:10M", "--format", "md")
    assert "| VL + Depth |" in answer.stdout
    assert "paper (L/16 10M), not comparable" in answer.stdout


def test_it_imports_nothing_heavy(results: Path) -> None:
    calls = [["table", n, *([] if n == "1" else ["--results", str(results)]), "--format", "csv"] for n in NUMBERS]
    code = (
        "import sys\nfrom mtv.eval.cli import invoke\n"
        f"code = sum(invoke(c) for c in {calls!r})\n"
        "heavy = ('torch', 'torchvision', 'transformers', 'open_clip', 'timm', 'pandas', 'scipy', 'matplotlib')\n"
        "print(code, [m for m in heavy if m in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "0 []"
