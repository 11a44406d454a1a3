"""Words of records: no paths, no markup."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtv.leaderboards.report.text import anchor, esc, scrub


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("cannot read /home/ada/x/val.txt: gone", "cannot read …/val.txt: gone"),
        ("see '/data/a b'", "see '…/a b'"),
        ("~/runs/b16, ~ada/runs", "…/b16, ~ada/runs"),
        ("error:/root/secret", "error:…/secret"),
        ("(/mnt/x/y)", "(…/y)"),
        ("/data/imagenet.", "…/imagenet."),
        (r"C:\Users\ada\w.pt missing", "…/w.pt missing"),
        ("file:///home/ada/x.html", "…/x.html"),
        ("hf:Becomebright/MTV-base-patch16-224", "hf:Becomebright/MTV-base-patch16-224"),
        ("timm:x@w.safetensors?mean=0.5,0.5", "timm:x@w.safetensors?mean=0.5,0.5"),
        ("hf:./export, ../up", "hf:./export, ../up"),
        ("1/4 of text/image at 2 m / s", "1/4 of text/image at 2 m / s"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("mean of 1/2/5 cm", "mean of 1/2/5 cm"),
        ("a\x00b\x1bc", "a\ufffdb\ufffdc"),
    ],
)
def test_paths_are_cut_to_their_last_component(given_text: str, expected: str) -> None:
    assert scrub(given_text) == expected


names = st.text(st.sampled_from("abcXYZ019_-+@"), min_size=1, max_size=8)


@given(st.lists(names, min_size=2, max_size=6), st.sampled_from(["", "cannot open ", "('", '"', "in: ", "path="]))
def test_no_directory_of_an_absolute_path_survives(parts: list[str], before: str) -> None:
    shown = scrub(f"{before}/{'/'.join(parts)}")
    assert shown == f"{before}…/{parts[-1]}"


@given(st.text(max_size=60))
def test_escaped_text_is_only_text(text: str) -> None:
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert (tag, [k for k, _ in attrs]) == ("p", ["title"])
            seen.append(attrs[0][1] or "")

        def handle_data(self, data: str) -> None:
            seen.append(data)

        def handle_comment(self, data: str) -> None:
            raise AssertionError("a comment")

    reader = Reader(convert_charrefs=True)
    reader.feed(f'<p title="{esc(text)}">{esc(text)}</p>')
    reader.close()
    assert html.unescape(esc(text)) == scrub(text)
    assert seen[0] == scrub(text)


@given(st.lists(st.text(max_size=10), min_size=1, max_size=3))
def test_anchors_are_plain(parts: list[str]) -> None:
    assert set(anchor(*parts)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert anchor(*parts)
