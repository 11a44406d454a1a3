"""One submission: how it is made from a result store, and whether one is well-formed. README.md describes the form.

Notable choices:

* The protocol stands in full, so its hash is made again from it: nobody can put a number under another protocol's name.
* Only headline metrics: a submission is read by people. Everything else is in a bundle (`export --to json`).
* No finding is final about honesty: the command lets anybody repeat the number.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtv import __version__
from mtv.errors import UsageError
from mtv.leaderboards.community.privacy import leaks
from mtv.leaderboards.frame import Stored, headline_keys, metrics_of, task_order
from mtv.leaderboards.report.commands import command_of
from mtv.leaderboards.sharing.checks import Findings, check_number, check_protocol

FORMAT = "mtv-community"
SUBMISSION_VERSION = 1
MAX_KB = 256
"""Size limit of one file."""
TOP = ("format", "schema_version", "model", "submitter", "date", "mtv", "results")
MODEL = ("name", "spec", "link", "fingerprint", "random")
RESULT = (
    *("metric", "value", "unit", "ci95", "n", "n_clusters", "higher_is_better"),
    *("protocol", "data", "label", "command", "mtv"),
)
PROTOCOL = ("id", "task", "preset", "version", "hash", "params")
DATA = ("name", "split", "fingerprint")
_FILE = re.compile(r"[a-z0-9][a-z0-9._-]*\.json")
_LOCAL = re.compile(r"(?:python|mtv):|\w+:\.{0,2}/|(?:open_clip|timm):[^?]*@(?!random\b)")
"""Specs that name a file or folder of one machine."""


def file_name(name: str, fingerprint: str) -> str:
    """The name that a submission's file begins with: `<model>-<first 8 digits of the fingerprint>`, in lower case."""
    plain = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")[:60]
    return f"{plain or 'model'}-{fingerprint[:8]}"


def make_submission(
    records: Sequence[Stored],
    *,
    date: datetime.date,
    link: str | None = None,
    submitter: str | None = None,
    handle: str | None = None,
) -> dict[str, Any]:
    """The headline results of one model as a submission.

    Args:
        records: results of one model, none failed.
        date: of the submission.
        link: where the weights or the paper are; needed where the spec names a local file.
        submitter: name of who submits.
        handle: account name of who submits.

    Raises:
        UsageError: no headline value, or what was made does not pass its own check; names the field.
    """
    model = records[0].record.model
    results = [
        _result(stored, key)
        for task in task_order(records)
        for stored in sorted((s for s in records if s.record.task == task), key=lambda s: (s.setting, s.shard))
        for key in headline_keys(task, [stored])
        if key in (of := metrics_of(stored.record)) and of[key].value is not None
    ]
    if not results:
        raise UsageError(f"{records[0].record.model_name} has no headline value to submit")
    who = {k: v for k, v in (("name", submitter), ("handle", handle)) if v}
    document = {
        "format": FORMAT,
        "schema_version": SUBMISSION_VERSION,
        "model": {
            "name": records[0].record.model_name,
            "spec": str(model.get("spec", "")),
            "link": link,
            "fingerprint": model.get("fingerprint"),
            "random": bool(model.get("random")),
        },
        "submitter": who or None,
        "date": date.isoformat(),
        "mtv": __version__,
        "results": results,
    }
    document = json.loads(json.dumps(document, allow_nan=False))
    if problems := submission_problems(document):
        raise UsageError(f"this submission would be refused: {problems[0]}", _advice(problems[0]))
    return document


def _advice(problem: str) -> str:
    return "Name it with --link https://..." if problem.startswith("model.link") else ""


def _result(stored: Stored, key: str) -> dict[str, Any]:
    record, metric = stored.record, metrics_of(stored.record)[key]
    return {
        "metric": key,
        **{name: getattr(metric, name) for name in RESULT[1:7]},
        "protocol": {name: record.protocol[name] for name in PROTOCOL},
        "data": {name: record.data.get(name) for name in DATA},
        "label": stored.label,
        "command": command_of(record),
        "mtv": str(record.env.get("mtv") or ""),
    }


def check_submission(path: Path) -> list[str]:
    """What is wrong with a submission's file, each with the name of the field; empty if nothing is.

    Args:
        path: the file; its name is checked too. Duplicates of other files are `rules.check_folder`'s business.
    """
    if path.stat().st_size > MAX_KB * 1024:
        return [f"the file is larger than {MAX_KB} KB"]
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        return [f"not JSON ({e})"]
    if problems := submission_problems(document):
        return problems
    return _name_problems(path, document)


def _name_problems(path: Path, document: Mapping[str, Any]) -> list[str]:
    start = file_name(document["model"]["name"], document["model"]["fingerprint"])
    rest = path.name.removeprefix(start)
    if _FILE.fullmatch(path.name) and rest != path.name and (rest == ".json" or rest.startswith("-")):
        return []
    return [f"file name: expected {start}.json or {start}-<who>.json, in lower case"]


def submission_problems(document: Any) -> list[str]:
    """What is wrong with the content of a submission."""
    found = Findings()
    if not isinstance(document, dict):
        return ["expected an object"]
    if (form := found.get(document, "", "format", str)) not in (None, FORMAT):
        found.add("format", f"{form!r} is not {FORMAT!r}")
    version = found.get(document, "", "schema_version", int)
    if version not in (None, SUBMISSION_VERSION):
        found.add("schema_version", f"{version}, this mtv reads {SUBMISSION_VERSION}")
    if found.found:
        return found.found
    _only(found, document, "", TOP)
    found.get(document, "", "mtv", str)
    _check_date(found, document)
    _check_model(found, document)
    who = found.get(document, "", "submitter", dict, optional=True)
    for name in who or {}:
        found.get(who, "submitter", name, str)
    _only(found, who or {}, "submitter", ("name", "handle"))
    results = found.get(document, "", "results", list)
    if results == []:
        found.add("results", "none")
    for k, result in enumerate(results or ()):
        _check_result(found, result, f"results[{k}]")
    _check_leaks(found, document)
    return found.found or _repeated(document)


def _only(found: Findings, data: Mapping[str, Any], where: str, names: Sequence[str]) -> None:
    for name in data:
        if name not in names:
            found.add(f"{where}.{name}" if where else name, f"unknown; known: {', '.join(names)}")


def _check_date(found: Findings, document: Mapping[str, Any]) -> None:
    date = found.get(document, "", "date", str)
    try:
        if date is not None and datetime.date.fromisoformat(date).isoformat() != date:
            raise ValueError
    except ValueError:
        found.add("date", f"{date!r} is not YYYY-MM-DD")


def _check_model(found: Findings, document: Mapping[str, Any]) -> None:
    model = found.get(document, "", "model", dict)
    if model is None:
        return
    _only(found, model, "model", MODEL)
    name, spec = found.get(model, "model", "name", str), found.get(model, "model", "spec", str)
    link = found.get(model, "model", "link", str, optional=True)
    found.sha256(model, "model", "fingerprint")
    found.get(model, "model", "random", bool)
    if name is not None and not name.strip():
        found.add("model.name", "empty")
    if link is not None and not re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(/\S*)?", link):
        found.add("model.link", f"{link!r} is not an https:// address")
    if link is None and spec is not None and (_LOCAL.match(spec) or not spec):
        found.add("model.link", f"needed, because the spec {spec!r} is of one machine: where are the weights?")


def _check_result(found: Findings, result: Any, where: str) -> None:
    if not isinstance(result, dict):
        found.add(where, "expected an object")
        return
    _only(found, result, where, RESULT)
    metric = found.get(result, where, "metric", str) or ""
    task, slash, last = metric.partition("/")
    if metric and not (task and slash and last):
        found.add(f"{where}.metric", f"{metric!r} is not task/metric")
    check_number(found, result, where)
    if result.get("value", 0) is None:
        found.add(f"{where}.value", "null: leave the result out")
    if (protocol := found.get(result, where, "protocol", dict)) is not None:
        _only(found, protocol, f"{where}.protocol", PROTOCOL)
        check_protocol(found, protocol, f"{where}.protocol", task)
    if (data := found.get(result, where, "data", dict)) is not None:
        _only(found, data, f"{where}.data", DATA)
        found.get(data, f"{where}.data", "name", str)
        found.get(data, f"{where}.data", "split", str, optional=True)
        found.sha256(data, f"{where}.data", "fingerprint")
    for name in ("label", "mtv"):
        found.get(result, where, name, str)
    command = found.get(result, where, "command", str)
    if command is not None and not command.startswith("mtv-eval run "):
        found.add(f"{where}.command", f"{command[:40]!r} does not begin with 'mtv-eval run '")


def _check_leaks(found: Findings, document: Mapping[str, Any]) -> None:
    model = document.get("model")
    # The link is the one address that belongs into a submission, and it has its own check.
    unlinked = {k: v for k, v in model.items() if k != "link"} if isinstance(model, dict) else model
    for field, what in leaks({**document, "model": unlinked}):
        found.add(field, f"shows {what}")


def _repeated(document: Mapping[str, Any]) -> list[str]:
    seen: set[tuple[str, ...]] = set()
    out = []
    for k, r in enumerate(document["results"]):
        key = (r["metric"], r["protocol"]["hash"], r["data"]["fingerprint"], r["label"])
        if key in seen:
            out.append(f"results[{k}]: {r['metric']} stands twice for one protocol and one data set")
        seen.add(key)
    return out
