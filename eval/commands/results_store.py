"""`mtv-eval results merge|export|import|check`: stores of several machines into one, and results to and from others.

They read and write results only, and import no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mtv.errors import UsageError
from mtv.eval.commands.options import DirPath, json_option, results_option

if TYPE_CHECKING:
    from mtv.leaderboards.frame import Stored
    from mtv.leaderboards.sharing.merge import Merged

ONLY = {
    "source_url": ("--source-url", ("model-index",)),
    "link": ("--link", ("community",)),
    "submitter": ("--submitter", ("community",)),
    "handle": ("--handle", ("community",)),
}
"""Parameter to its option and the formats that it belongs to."""
NEEDS_MODEL = ("model-index", "community")

prefer_option = click.option(
    "--prefer",
    type=click.Choice(["newest", "first"]),
    default=None,
    help="Where numbers differ, take the newest, or the first (--out, then the sources in order).  [default: neither]",
)
target_option = click.option("--out", type=DirPath, required=True, help="Result store to write to; made if absent.")


@click.group()
def results() -> None:
    """Merge, export, import and check stored results."""


@results.command()
@click.argument("sources", nargs=-1, required=True, type=DirPath, metavar="SRC...")
@target_option
@prefer_option
@json_option
def merge(sources: tuple[Path, ...], out: Path, prefer: Any, as_json: bool) -> int:
    """Bring the result stores SRC... into one; --out may be one of them.

    Results are the same if model, protocol and data are. Of those whose numbers agree one is kept, complete before
    partial, the earliest. Where numbers differ nothing is taken or overwritten: the conflict is named, and the exit
    code is 1 until --prefer decides it. A damaged result is named and skipped (exit code 1 too). Sample tables and
    pictures travel along; sources are only read; a rerun does what is missing.

    \b
    mtv-eval results merge gpu1/results gpu2/results --out results
    """
    from mtv.eval.store import ResultStore
    from mtv.leaderboards.sharing import merge as merging

    return _report(merging.merge(sources, out, place=ResultStore(out).path_for, prefer=prefer), out, as_json)


@results.command(name="import")
@click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False), metavar="BUNDLE.json")
@target_option
@prefer_option
@json_option
def import_bundle(bundle: Path, out: Path, prefer: Any, as_json: bool) -> int:
    """Bring the results of a bundle (`export --to json`) into a store.

    Every field and hash is checked first; nothing is written if one is wrong. The results are marked as imported: they
    have no sample tables, so their intervals are as stated and a paired comparison is refused. Results that --out holds
    already are treated as in `merge`.
    """
    from mtv.eval.store import ResultStore
    from mtv.leaderboards.sharing.bundle import read_bundle
    from mtv.leaderboards.sharing.entries import scan, store_labels
    from mtv.leaderboards.sharing.merge import combine

    entries = read_bundle(bundle)
    own, damaged = scan(out, label=store_labels([out])[0], rank=0) if out.is_dir() else ([], [])
    place = ResultStore(out).path_for
    return _report(combine([*own, *entries], damaged, out, place=place, prefer=prefer), out, as_json)


def _report(merged: Merged, out: Path, as_json: bool) -> int:
    for d in merged.damaged:
        click.echo(f"damaged, skipped: {d.name}: {d.reason}", err=True)
    for conflict in merged.conflicts:
        click.echo("conflict: " + "\n".join(conflict.lines()), err=True)
    for w in merged.written:
        if w.missing:
            click.echo(f"{w.source}: without {len(w.missing)} pictures that are gone: {w.missing[0]} ...", err=True)
    if as_json:
        click.echo(json.dumps(merged.to_dict(), indent=1))
        return merged.exit_code
    for w in merged.written:
        click.echo(f"{w.path.as_posix()}  from {w.source}")
    counts = {
        "written": len(merged.written),
        "there already": merged.present,
        "needless copies": len(merged.left_out),
        "open conflicts": sum(not c.decided for c in merged.conflicts),
        "damaged": len(merged.damaged),
    }
    click.echo(f"{out}: {', '.join(f'{n} {what}' for what, n in counts.items())}", err=True)
    return merged.exit_code


@results.command()
@results_option
@click.option(
    "--to",
    "form",
    type=click.Choice(["model-index", "csv", "json", "community"]),
    required=True,
    help="YAML for a model card; one row per metric; full records with hashes; a file for leaderboards/community.",
)
@click.option("-m", "--model", "model", default=None, help="Alias, spec or fingerprint.  [default for csv, json: all]")
@click.option("-t", "--task", "tasks", multiple=True, help="Only this task; repeatable.")
@click.option("--protocol", "presets", multiple=True, help="Only results of this preset; repeatable.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="File to write; for community also the folder that gets it under its proper name.  [default: stdout]",
)
@click.option("--source-url", default=None, metavar="URL", help="model-index: where the results can be looked up.")
@click.option("--link", default=None, metavar="URL", help="community: where the weights or the paper are.")
@click.option("--submitter", default=None, metavar="NAME", help="community: who submits.")
@click.option("--handle", default=None, metavar="HANDLE", help="community: account name of who submits.")
@click.pass_context
def export(
    ctx: click.Context,
    results_dir: Path,
    form: str,
    model: str | None,
    tasks: tuple[str, ...],
    presets: tuple[str, ...],
    out: Path | None,
    **options: str | None,
) -> None:
    """Stored results in a form for others. Failed and incomplete results stay out, and are named.

    \b
    mtv-eval results export --to model-index -m mtv-b16 >> README.md
    mtv-eval results export --to json --out mine.json         the other side: mtv-eval results import mine.json
    mtv-eval results export --to community -m mtv-b16 --link https://... --out leaderboards/community
    """
    for name, (option, forms) in ONLY.items():
        if form not in forms and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{option} does not apply to --to {form}", f"It belongs to --to {', '.join(forms)}.")
    if model is None and form in NEEDS_MODEL:
        raise UsageError(f"--to {form} needs --model", "`mtv-eval ls results` lists them.")
    records = _shareable(results_dir, model, tasks, presets)
    text, name = _exported(form, records, **options)
    if out is None:
        click.echo(text, nl=False)
        return
    from mtv.atomic import atomic_write_bytes

    target = out / name if name and out.is_dir() else out
    atomic_write_bytes(target, text.encode("utf-8"))
    click.echo(f"{len(records)} results -> {target}", err=True)


def _shareable(results_dir: Path, model: str | None, tasks: tuple[str, ...], presets: tuple[str, ...]) -> list[Stored]:
    """The chosen results that have numbers and their own sample table, or came without one."""
    from mtv.leaderboards.compare import select_model
    from mtv.leaderboards.frame import load
    from mtv.results import is_whole

    records = load(results_dir, tasks=tasks, presets=presets)
    if model is not None:
        records = select_model(records, model)
    out = []
    for s in records:
        if s.record.status == "failed":
            click.echo(f"left out: {s.record.protocol['id']} of {s.record.model_name} failed", err=True)
        elif not is_whole(s.path, s.record, verify=True):
            click.echo(f"left out: {s.record.protocol['id']} of {s.record.model_name} lacks its sample table", err=True)
        else:
            out.append(s)
    if not out:
        raise UsageError("no result to export", "`mtv-eval status` says what is there.")
    return out


def _exported(form: str, records: list[Stored], **options: str | None) -> tuple[str, str]:
    """The text, and the file name that it has in a folder of such files (empty where there is no rule)."""
    if form == "csv":
        from mtv.leaderboards.sharing.rows_csv import rows_csv

        return rows_csv(records), ""
    if form == "json":
        from mtv.leaderboards.sharing.bundle import make_bundle

        return _json(make_bundle(records)), ""
    if form == "model-index":
        from mtv.leaderboards.sharing.model_index import model_index
        from mtv.leaderboards.sharing.yaml_text import yaml_text

        index = model_index(records, records[0].record.model_name, source_url=options["source_url"])
        return yaml_text(index), ""
    import datetime

    from mtv.leaderboards.community.submission import file_name, make_submission

    document = make_submission(
        records,
        date=datetime.datetime.now(datetime.timezone.utc).date(),
        **{k: options[k] for k in ("link", "submitter", "handle")},
    )
    return _json(document), f"{file_name(document['model']['name'], document['model']['fingerprint'])}.json"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@results.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE..."
)
def check(files: tuple[Path, ...]) -> int:
    """Check bundles and community submissions; every problem names its field. Exit code 1 if there is one.

    Submissions are checked against the community's files too: a result stands in one file only.
    """
    from mtv.errors import CacheError
    from mtv.leaderboards.community.community import check_files, submissions
    from mtv.leaderboards.sharing.bundle import FORMAT, bundle_problems, read_json

    problems: dict[Path, list[str]] = {}
    submitted = []
    for path in files:
        try:
            document = read_json(path)
        except CacheError as e:
            problems[path] = [e.message.removeprefix(f"{path.name}: ")]
            continue
        if isinstance(document, dict) and document.get("format") == FORMAT:
            problems[path] = bundle_problems(document)
        else:
            submitted.append(path)
    named = {p.resolve() for p in submitted}
    others = [p for p in submissions() if p.resolve() not in named]
    verdicts = check_files([*others, *submitted]) if submitted else {}
    problems.update({p: found for p, found in verdicts.items() if p in submitted})
    for path in files:
        for problem in problems[path]:
            click.echo(f"{path.name}: {problem}")
        if not problems[path]:
            click.echo(f"{path.name}: ok", err=True)
    return int(any(problems.values()))
