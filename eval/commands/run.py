"""`mtv-eval run`: models times tasks."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from mtv.allocator import keep_freed_memory
from mtv.errors import UsageError
from mtv.eval.commands.options import (
    DirPath,
    cache_option,
    default_cache,
    device_of,
    json_option,
    parse_settings,
    verbosity_options,
)

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="SPEC",
    help="[NAME=]SPEC or alias (`mtv-eval ls models`), repeatable; `@specs.txt` reads one spec per line.",
)
@click.option(
    "-t", "--task", "tasks", multiple=True, required=True, help="Task or suite (`mtv-eval ls tasks`), repeatable."
)
@click.option("--data", type=DirPath, required=True, help="Folder that holds the data sets, up to two levels below.")
@click.option("--out", type=DirPath, default=Path("results"), show_default=True, help="Result store.")
@click.option(
    "--protocol",
    default=None,
    help="Preset for all tasks (`mtv-eval ls protocols`).  [default: mini for suite mini, else paper]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="TASK.FIELD=VALUE",
    help="Override a protocol field, or image.*, text.*, model.* of the model; repeatable.",
)
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, mps; auto takes a GPU if there is one."
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Dtype of the towers; scores are fp32 in any case. Part of the protocol.",
)
@click.option(
    "--batch-size",
    default="auto",
    show_default=True,
    help="Images per forward pass; halves itself when memory runs out.",
)
@click.option("--workers", type=int, default=None, help="Loader processes.  [default: min(8, cores)]")
@click.option("--limit", type=int, default=None, help="Use N samples, stratified; labelled in every table.")
@click.option("--shard", default=None, metavar="I/N", help="Only extract the features of shard I of N into the cache.")
@cache_option
@click.option("--no-cache", is_flag=True, help="Keep features in memory for this run only.")
@click.option(
    "--cache-limit-gb", type=float, default=50.0, show_default=True, help="Larger requests stay in memory, GiB."
)
@click.option("--download", is_flag=True, help="Allow fetching model weights from a hub; never data.")
@click.option("--force", is_flag=True, help="Compute again what is stored; the old record is kept as .prev.")
@click.option("--verify", is_flag=True, help="Hash data files, features and samples again before trusting them.")
@click.option("--break-lock", is_flag=True, help="Take over a cache lock left by another host.")
@click.option("--dry-run", is_flag=True, help="Print the plan (what is stored, cached, missing, how long) and stop.")
@click.option("--no-artefacts", is_flag=True, help="Write no pictures of best and worst samples.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap.")
@json_option
@verbosity_options
def run(**options: Any) -> int:
    """Run TASKs on MODELs and write one result per pair into --out.

    What is stored already for the same weights, protocol and data is skipped; a failing task does not stop the others.

    \b
    mtv-eval run -m clip-b16 -m siglip-b16 -t paper --data /data --out results
    mtv-eval run -m timm:vit_tiny_patch16_224@weights.safetensors -t spair --data /data --set spair.mode=centered
    mtv-eval run -m python:./my_model.py:build -t sevenscenes --data /data --dry-run
    mtv-eval run -m clip-b16 -t mini --data /miniature
    torchrun --nproc-per-node 8 -m mtv.eval run -m mtv-b16 -t imagenet --data /data --device cuda
    """
    from mtv.console import setup_logging

    setup_logging(verbose=options["verbose"], quiet=options["quiet"])
    try:
        return _run(options)
    except KeyboardInterrupt:
        command = shlex.join(["mtv-eval", *sys.argv[1:]])
        click.echo(f"interrupted; everything finished is stored. Continue with:\n  {command}", err=True)
        return 130


def _run(options: dict[str, Any]) -> int:
    jobs, overrides = _jobs(options)
    from mtv.encoders.options import merge_options
    from mtv.encoders.spec import expand_specs

    merge_options(overrides)  # a wrong key or value would fail for every model, after the data were read
    specs = expand_specs(list(options["models"]))
    if not options["data"].is_dir():
        raise UsageError(f"--data {options['data']}: no such directory", "Name the folder that holds the data sets.")
    from mtv.encoders import load
    from mtv.eval.runner import Runner
    from mtv.eval.store import ResultStore

    settings = _run_options(options)
    if settings.device == "cpu":
        keep_freed_memory()
    runner = Runner(options["data"], ResultStore(options["out"]), settings)
    runner.open(jobs)
    for spec in specs:
        started = time.perf_counter()
        try:
            encoder = load(
                spec, device=settings.device, dtype=options["dtype"], download=options["download"], overrides=overrides
            )
        except Exception as e:  # whatever a model's code raises, the other models still run
            runner.fail_model(spec.public, spec.alias, jobs, e)
            continue
        runner.loaded(spec.public, spec.alias)
        runner.run_model(encoder, jobs, load_seconds=time.perf_counter() - started)
    if runner.first:
        _report(runner, options)
    return runner.exit_code


def _jobs(options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    from mtv.eval.jobs import Job
    from mtv.eval.protocols import protocol_for
    from mtv.eval.suites import expand_tasks, unavailable

    chosen = expand_tasks(list(options["tasks"]))
    for task, reason in unavailable(options["tasks"]).items():
        log.info("%s: not run, %s", task, reason)
    protocols, overrides = parse_settings(options["settings"], [c.task for c in chosen])
    jobs = []
    for choice in chosen:
        fields = {**choice.overrides, **protocols.get(choice.task, {}), "tower_dtype": options["dtype"]}
        if options["limit"] is not None:
            fields["limit"] = options["limit"]
        preset = options["protocol"] or choice.preset
        protocol = protocol_for(choice.task, preset, fields)
        jobs.append(Job(protocol=protocol, preset=preset, suite=choice.suite))
    return jobs, overrides


def _run_options(options: dict[str, Any]) -> Any:
    from mtv.eval.features.options import ExtractOptions
    from mtv.eval.runner import RunOptions, parse_shard

    size = options["batch_size"]
    if size != "auto" and not (size.isdigit() and int(size) > 0):
        raise UsageError(f"--batch-size {size}: expected `auto` or a positive number")
    extract = ExtractOptions(
        cache_dir=None if options["no_cache"] else options["cache_dir"] or default_cache(),
        batch_size=None if size == "auto" else int(size),
        workers=options["workers"],
        cache_limit_gb=options["cache_limit_gb"],
        verify=options["verify"],
        break_lock=options["break_lock"],
    )
    if options["shard"] and options["no_cache"]:
        raise UsageError("--shard and --no-cache exclude each other", "A shard's features go into the cache.")
    return RunOptions(
        device=device_of(options["device"]),
        extract=extract,
        force=options["force"],
        verify=options["verify"],
        dry_run=options["dry_run"],
        artefacts=not options["no_artefacts"],
        quiet=options["quiet"],
        seed=options["seed"],
        shard=parse_shard(options["shard"]) if options["shard"] else None,
    )


def _report(runner: Any, options: dict[str, Any]) -> None:
    """The plan or the table on stdout, the failures on stderr."""
    if options["dry_run"]:
        plans = [p.to_dict() for p in runner.plans]
        click.echo(json.dumps(plans, indent=1) if options["as_json"] else "\n".join(p.line() for p in runner.plans))
    elif options["as_json"]:
        click.echo(json.dumps([r.to_json() for r in runner.results], indent=1))
    elif runner.results and not options["quiet"]:
        from mtv.eval.suites import unavailable
        from mtv.leaderboards.formats import render
        from mtv.leaderboards.frame import Stored
        from mtv.leaderboards.table import build_table

        stored = [Stored(path=Path(), record=r) for r in runner.results]
        table = build_table(stored, allow_mixed=True, published=False, unavailable=unavailable(options["tasks"]))
        click.echo(render(table, "rich"))
    for failure in runner.failures:
        click.echo(f"FAILED {failure.what}: {failure.message}", err=True)
