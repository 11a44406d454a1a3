"""The page in a real browser: headless Chromium, driven from here. Skipped where there is none.

`MTV_CHROMIUM` names a browser that is not on the PATH; `MTV_SCREENSHOTS` a folder that keeps the pictures. The page is
put into frames of a page of ours as it is, its content security policy included, because only there can a script of
ours press its buttons.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_document import parse

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> str:
    """The browser's command."""
    found = os.environ.get("MTV_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no headless browser: install Debian's chromium, or name one with MTV_CHROMIUM")
    return found


def run(browser: str, profile: Path, page: Path, *options: str) -> tuple[str, list[str]]:
    """Standard output, and what the page wrote to the console."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=4000", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, re.findall(r"CONSOLE[^\]]*\]\s*(.*)", done.stderr)


PROBE = """
const results = {};
const framed = (width) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.srcdoc = document.getElementById("page").textContent;
  frame.addEventListener("load", () => done(frame.contentDocument));
  document.body.append(frame);
});
const column = (frame, k) => [...frame.querySelectorAll("tbody tr")].map((row) => row.cells[k].textContent);
(async () => {
  const page = await framed(1280);
  const frame = page.getElementById("results-table");
  const headings = [...frame.querySelectorAll("thead th")];
  const place = headings.findIndex((h) => h.textContent.startsWith("ImageNet"));
  const rmse = headings.findIndex((h) => h.textContent.startsWith("NYUv2"));
  const state = (k) => ({
    names: column(frame, 0), values: column(frame, k), sort: headings.map((h) => h.getAttribute("aria-sort")),
    said: frame.querySelector("[role=status]").textContent,
  });
  const press = (k) => headings[k].querySelector("button").click();
  results.buttons = headings.map((h) => [h.firstChild.tagName, h.firstChild.tabIndex]);
  results.start = state(place);
  for (const name of ["once", "twice", "thrice"]) { press(place); results[name] = state(place); }
  press(rmse); results.rmse = state(rmse);
  press(0); results.byName = state(0);
  const field = frame.querySelector("input[type=search]");
  const shown = () => [...frame.querySelectorAll("tbody tr")].filter((r) => r.offsetParent !== null)
    .map((r) => r.cells[0].textContent);
  const type = (text) => { field.value = text; field.dispatchEvent(new Event("input")); };
  type("VIT bad"); results.filtered = { shown: shown(), said: frame.querySelector("[role=status]").textContent };
  type(""); results.unfiltered = shown();
  page.querySelectorAll("details").forEach((d) => { d.open = true; });
  await Promise.all([...page.images].map((i) => { i.loading = "eager"; return i.decode(); }));
  results.images = [...page.images].map((i) => [i.naturalWidth, i.naturalHeight]);
  results.copies = page.querySelectorAll("button.copy").length;
  page.defaultView.dispatchEvent(new Event("beforeprint"));
  results.hostile = page.querySelectorAll("script").length;
  for (const width of [390, 1280]) {
    const other = await framed(width);
    const root = other.documentElement;
    results[`width${width}`] = [root.scrollWidth, root.clientWidth];
    results[`svg${width}`] = [...other.querySelectorAll("svg")].map((s) => s.getBoundingClientRect().width);
  }
  document.getElementById("out").textContent = JSON.stringify(results);
})();
"""


@pytest.fixture(scope="module")
def seen(browser: str, store_page: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe found; fails if anything was written to the console."""
    folder = tmp_path_factory.mktemp("browser")
    wrapper = folder / "probe.html"
    wrapper.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><body><textarea id="page">{html.escape(store_page)}</textarea>'
        f'<pre id="out"></pre><script>{PROBE}</script>',
        encoding="utf-8",
    )
    text, console = run(browser, folder / "profile", wrapper, "--dump-dom")
    assert console == []
    found = re.search(r'<pre id="out">(.*?)</pre>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(html.unescape(found[1])))


def numbers(cells: list[str]) -> list[float | None]:
    found = [re.match(r"−?\d+(\.\d+)?", c) for c in cells]
    return [float(m[0].replace("−", "-")) if m else None for m in found]


def test_headings_are_buttons_that_a_keyboard_reaches(seen: dict[str, Any]) -> None:
    assert seen["buttons"]
    assert all(button == ["BUTTON", 0] for button in seen["buttons"])
    assert set(seen["start"]["sort"]) == {"none"}


def test_sorting_by_a_column_of_numbers(seen: dict[str, Any]) -> None:
    start, once, twice, thrice = (seen[k] for k in ("start", "once", "twice", "thrice"))
    values = [v for v in numbers(start["values"]) if v is not None]
    assert len(values) >= 3
    assert numbers(once["values"])[: len(values)] == sorted(values, reverse=True)
    assert numbers(twice["values"])[: len(values)] == sorted(values)
    assert thrice["names"] == start["names"]
    assert "descending" in once["sort"]
    assert "ascending" in twice["sort"]
    assert set(thrice["sort"]) == {"none"}
    assert once["said"].endswith("descending")
    # A row stays a row.
    pairs = sorted(zip(start["names"], start["values"], strict=True))
    assert sorted(zip(once["names"], once["values"], strict=True)) == pairs


def test_the_smaller_rmse_comes_first_and_cells_without_a_number_last(seen: dict[str, Any]) -> None:
    found = numbers(seen["rmse"]["values"])
    known = [v for v in found if v is not None]
    assert found == [*sorted(known), *[None] * (len(found) - len(known))]
    assert None in found
    assert "ascending" in seen["rmse"]["sort"]


def test_sorting_by_name(seen: dict[str, Any]) -> None:
    names = seen["byName"]["names"]
    assert [n for n in names if n[0].isalpha()] == sorted(n for n in names if n[0].isalpha())


def test_filtering_by_words(seen: dict[str, Any]) -> None:
    assert seen["filtered"]["shown"] == ["vit-bad"]
    assert seen["filtered"]["said"].startswith("1 of ")
    assert len(seen["unfiltered"]) == len(seen["start"]["names"])


def test_pictures_are_decoded_and_commands_can_be_copied(seen: dict[str, Any], store_page: str) -> None:
    assert len(seen["images"]) == len(parse(store_page).all("img"))
    assert all(size == [56, 48] for size in seen["images"])
    assert seen["copies"] == len(parse(store_page).all("pre"))
    assert seen["hostile"] == 1


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(seen: dict[str, Any], width: int) -> None:
    assert seen[f"width{width}"][0] <= seen[f"width{width}"][1] == width
    # Figures keep a size at which their words can be read; on a phone they scroll within their frame.
    assert seen[f"svg{width}"]
    assert min(seen[f"svg{width}"]) > 500


@pytest.mark.parametrize(("name", "width"), [("desktop", 1280), ("phone", 500)])
@pytest.mark.parametrize("which", ["store", "study"])
def test_the_page_itself_loads_without_a_word_on_the_console(
    browser: str, request: pytest.FixtureRequest, tmp_path: Path, which: str, name: str, width: int
) -> None:
    page, picture = tmp_path / "report.html", tmp_path / f"{which}-{name}.png"
    page.write_text(request.getfixturevalue(f"{which}_page"), encoding="utf-8")
    _, console = run(browser, tmp_path / "profile", page, f"--window-size={width},1600", f"--screenshot={picture}")
    assert console == []
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.shape == (1600, width)
    # Ink on every fifth of the page: text, tables and a figure, not an empty sheet.
    assert all((part < 128).mean() > 0.003 for part in np.array_split(pixels, 5))
    if "MTV_SCREENSHOTS" in os.environ:
        shutil.copy(picture, Path(os.environ["MTV_SCREENSHOTS"]) / picture.name)


def test_a_printed_page_holds_the_numbers(browser: str, store_page: str, tmp_path: Path) -> None:
    page, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(store_page, encoding="utf-8")
    _, console = run(browser, tmp_path / "profile", page, "--no-pdf-header-footer", f"--print-to-pdf={printed}")
    assert console == []
    assert printed.read_bytes().startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) >= 2
    if "MTV_SCREENSHOTS" in os.environ:
        shutil.copy(printed, Path(os.environ["MTV_SCREENSHOTS"]) / printed.name)
