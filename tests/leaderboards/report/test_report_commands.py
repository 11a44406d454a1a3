"""The command of a record, given to the real command line, asks for the same protocol and the same model."""

from __future__ import annotations

import dataclasses
import html
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from report_document import parse
from report_stores import put

from mtv.encoders.aliases import ALIASES
from mtv.encoders.spec import expand_specs
from mtv.eval.commands import run as run_module
from mtv.eval.commands.options import parse_settings
from mtv.eval.protocols import PROTOCOLS, protocol_for
from mtv.leaderboards.frame import load
from mtv.leaderboards.report.commands import command_of
from mtv.results import TaskResult


def options_of(command: str) -> dict[str, Any]:
    """What `mtv-eval run` makes of it."""
    words = shlex.split(command)
    assert words[:2] == ["mtv-eval", "run"]
    return dict(run_module.run.make_context("run", words[2:]).params)


def record(task: str, preset: str = "paper", fields: dict[str, Any] | None = None, **model: Any) -> TaskResult:
    return TaskResult(
        created="",
        status="complete",
        task=task,
        protocol=protocol_for(task, preset, fields or {}).describe(preset),
        model={"spec": "timm:vit", "alias": "vit", "sources": {}, **model},
        data={},
        run={"seed": 0},
    )


@pytest.mark.parametrize("task", sorted(PROTOCOLS))
def test_every_preset_of_every_task_comes_back(task: str) -> None:
    for preset in PROTOCOLS[task].presets:
        wanted = record(task, preset)
        jobs, _ = run_module._jobs(options_of(command_of(wanted)))
        assert [j.protocol.hash for j in jobs] == [wanted.protocol["hash"]], preset


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("imagenet", {"limit": 50, "templates": "one", "size": 336}),
        ("imagenet", {"tower_dtype": "bf16"}),
        ("coco", {"captions": "first5", "prefix": "a photo of $HOME; rm -rf 'x' "}),
        ("spair", {"mode": "centered", "layer": 2, "limit": 7}),
        ("nyuv2", {"base": None} if "base" in {f.name for f in dataclasses.fields(PROTOCOLS["nyuv2"])} else {}),
        ("ade20k", {"layers": (2, 5), "concat_global": True, "stride": 100}),
    ],
)
def test_changed_fields_come_back(task: str, fields: dict[str, Any]) -> None:
    known = {f.name for f in dataclasses.fields(PROTOCOLS[task])}
    wanted = record(task, "paper", {k: v for k, v in fields.items() if k in known})
    jobs, _ = run_module._jobs(options_of(command_of(wanted)))
    assert jobs[0].protocol.hash == wanted.protocol["hash"]
    assert jobs[0].protocol.id(jobs[0].preset) == wanted.protocol["id"]


@pytest.mark.parametrize(
    ("alias", "spec"),
    [
        ("mine", "timm:vit_tiny_patch16_224@w.safetensors?mean=0.5,0.5,0.5&std=0.5,0.5,0.5"),
        (None, "open_clip:ViT-B-16@weights.pt"),
        ("clip-b16", ALIASES["clip-b16"].spec),
        ("clip-b16", f"{ALIASES['clip-b16'].spec}?size=336"),
        ("run", "mtv:./b16/step_000100"),
    ],
)
def test_the_model_comes_back_under_its_name(alias: str | None, spec: str) -> None:
    options = options_of(command_of(record("imagenet", spec=spec, alias=alias)))
    (found,) = expand_specs(list(options["models"]))
    assert (found.text, found.alias) == (spec, alias)


def test_options_set_beside_the_spec_come_back_and_those_in_it_only_once() -> None:
    sources = {
        "image.size": "option: size=336",
        "image.mean": "option: mean=0.5,0.5,0.5",
        "text.cleaning": "option: cleaning=lower",
        "activation": "option: quick_gelu=true",
        "image.resize": "config: preprocessor_config.json",
    }
    wanted = record("imagenet", spec="timm:vit?mean=0.5,0.5,0.5", sources=sources)
    options = options_of(command_of(wanted))
    _, overrides = parse_settings(options["settings"], ["imagenet"])
    assert overrides == {"image.size": "336", "text.cleaning": "lower", "quick_gelu": "true"}


def test_a_seed_of_the_bootstrap_comes_back() -> None:
    wanted = dataclasses.replace(record("imagenet"), run={"seed": 5})
    assert options_of(command_of(wanted))["seed"] == 5


def test_a_failed_record_gives_the_command_that_tries_again(tmp_path: Path) -> None:
    put(tmp_path, "vit", "coco", error="no data")
    options = options_of(command_of(load(tmp_path)[0].record))
    assert (options["tasks"], options["models"]) == (("coco",), ("vit=timm:vit",))


def test_the_page_holds_the_command_of_every_result(made_store: Path, store_page: str) -> None:
    section = next(s for s in parse(store_page).all("section") if s.attrs.get("aria-labelledby") == "commands")
    shown = sorted(c.text for pre in section.all("pre") for c in pre.all("code"))
    assert shown == sorted(command_of(s.record) for s in load(made_store))
    assert re.search(r"mtv 0\.1\.0, commit f2d9a528", section.text)
    assert "<script>" not in re.sub(r"<script>.*?</script>", "", store_page, flags=re.DOTALL)
    assert html.escape("'<script>alert(1)</script>=timm:vit_2@random?seed=2'") in store_page
