"""Full records in one JSON file, each with its hash and one over the whole, and the way back into a store.

`{format, schema_version, mtv, results: [{sha256, record}], sha256}`: hashes are of canonical JSON; the last one covers
everything but itself. Sample tables stay where they are: an imported result keeps its numbers and intervals and says
so, and a paired comparison with it is refused. The hashes find damage and careless edits; they are no signature.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtv import __version__
from mtv.errors import CacheError
from mtv.hashing import sha256_json
from mtv.leaderboards.frame import Stored
from mtv.leaderboards.sharing.checks import Findings, record_problems
from mtv.leaderboards.sharing.entries import Entry
from mtv.results import TaskResult

FORMAT = "mtv-results"
BUNDLE_VERSION = 1
MAX_MB = 256
"""Larger files are refused before they are read."""


def make_bundle(records: Sequence[Stored]) -> dict[str, Any]:
    """The bundle of these results, ready for `json.dump`.

    Args:
        records: complete or partial; a failed one could not be imported.
    """
    results = []
    for s in records:
        # Through JSON, so that the hash is of what a reader will see.
        record = json.loads(json.dumps(s.record.to_json(), allow_nan=False))
        results.append({"sha256": sha256_json(record), "record": record})
    body = {"format": FORMAT, "schema_version": BUNDLE_VERSION, "mtv": __version__, "results": results}
    return {**body, "sha256": sha256_json(body)}


def read_json(path: Path) -> Any:
    """A JSON file of somebody else.

    Raises:
        CacheError: missing, too large, or no JSON; names the file.
    """
    try:
        if path.stat().st_size > MAX_MB * 2**20:
            raise CacheError(f"{path.name}: larger than {MAX_MB} MB")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise CacheError(f"{path.name}: cannot be read as JSON ({getattr(e, 'strerror', None) or e})") from e


def bundle_problems(bundle: Any) -> list[str]:
    """What is wrong with a bundle, each with the name of the field; empty if nothing is."""
    found = Findings()
    if not isinstance(bundle, dict):
        return ["expected an object with format, schema_version and results"]
    if (form := found.get(bundle, "", "format", str)) not in (None, FORMAT):
        found.add("format", f"{form!r} is not {FORMAT!r}")
    version = found.get(bundle, "", "schema_version", int)
    if version not in (None, BUNDLE_VERSION):
        found.add("schema_version", f"{version}, this mtv reads {BUNDLE_VERSION}")
    stated, results = found.get(bundle, "", "sha256", str), found.get(bundle, "", "results", list)
    if found.found or results is None:
        return found.found
    for k, item in enumerate(results):
        _check_item(found, item, f"results[{k}]")
    if not found.found and _hash({k: v for k, v in bundle.items() if k != "sha256"}) != stated:
        found.add("sha256", "does not match the content: the bundle was edited or damaged")
    return found.found


def _check_item(found: Findings, item: Any, where: str) -> None:
    if not isinstance(item, dict) or set(item) != {"sha256", "record"}:
        found.add(where, "expected an object with sha256 and record")
        return
    if problems := record_problems(item["record"], f"{where}.record"):
        found.found += problems
        return
    if _hash(item["record"]) != item["sha256"]:
        found.add(f"{where}.sha256", "does not match the record: it was edited or damaged")
        return
    try:
        TaskResult.from_json(item["record"], where=f"{where}.record")
    except CacheError as e:
        found.found.append(e.message)


def _hash(value: Any) -> str:
    try:
        return sha256_json(value)
    except TypeError:
        return "none: NaN or infinity in it"


def read_bundle(path: Path, *, rank: int = 1) -> list[Entry]:
    """The results of a bundle, marked as imported, without files.

    `run.imported_from` says which bundle, its hash, and the hash of the sample table that stayed behind; a result that
    was imported before keeps its first origin.

    Args:
        path: what `make_bundle` gave.
        rank: place among the sources of a merge.

    Raises:
        CacheError: unreadable, or any field is wrong; names the first field, and how many more there are.
    """
    bundle = read_json(path)
    if problems := bundle_problems(bundle):
        more = f" (and {len(problems) - 1} more; `mtv-eval results check` lists them)" if len(problems) > 1 else ""
        raise CacheError(f"{path.name}: {problems[0]}{more}", "Nothing was imported.")
    return [
        Entry(
            name=f"{path.name} results[{k}]",
            record=_imported(TaskResult.from_json(item["record"]), path.name, bundle["sha256"]),
            path=None,
            rank=rank,
        )
        for k, item in enumerate(bundle["results"])
    ]


def _imported(record: TaskResult, name: str, sha256: str) -> TaskResult:
    table = (record.samples or {}).get("sha256")
    origin = record.run.get("imported_from") or {"bundle": name, "sha256": sha256, "samples_sha256": table}
    return replace(record, samples=None, artefacts=[], run={**record.run, "imported_from": origin})
