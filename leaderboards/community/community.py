"""The folder of submissions: its rules over all files, and its values in the form of published ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtv.errors import UsageError
from mtv.leaderboards.community.submission import check_submission
from mtv.leaderboards.frame import flatten
from mtv.leaderboards.grid import decimals
from mtv.leaderboards.published import Published, alias_of

TABLE = "community"


@dataclass(frozen=True, kw_only=True)
class CommunityValue(Published):
    """One submitted number: a published value that also knows its interval, and exactly what it was measured on."""

    model_fingerprint: str
    """Of the encoder: the same as of a measured model with the same weights."""
    protocol_hash: str
    """Comparable with results of the same hash ..."""
    data_fingerprint: str
    """... and the same data."""
    ci95: tuple[float, float] | None
    """95 % interval over the choice of test samples, as submitted."""
    n: int
    """Rows that entered."""
    measured_on: str
    """`subset (79 of 5000)`, `limit 100`; empty for the full set. `label` is the row's name."""
    command: str
    """Makes the number again."""

    @property
    def label(self) -> str:
        """Row name."""
        return f"community: {self.model} ({self.source})"

    @property
    def setting(self) -> tuple[str, str]:
        """(protocol hash, data fingerprint), as `Stored.setting`: values share a column only if these agree."""
        return self.protocol_hash, self.data_fingerprint


def submissions(folder: Path | None = None) -> list[Path]:
    """Files of submissions, by name.

    Args:
        folder: None for the one that came with this package.
    """
    return sorted((folder or Path(__file__).parent).glob("*.json"))


def check_files(paths: Iterable[Path]) -> dict[Path, list[str]]:
    """What is wrong with each file by itself, and with all of them together; an empty list where nothing is.

    A result (model fingerprint, protocol hash, data fingerprint) stands in one file only.
    """
    out: dict[Path, list[str]] = {}
    first: dict[tuple[str, ...], Path] = {}
    for path in paths:
        out[path] = check_submission(path)
        if out[path]:
            continue
        for key in sorted({(v.model_fingerprint, *v.setting, v.measured_on) for v in read_submission(path)}):
            other = first.setdefault(key, path)
            if other != path:
                model, protocol, data = (part[:8] for part in key[:3])
                out[path].append(
                    f"results: model {model}, protocol {protocol}, data {data} stands in {other.name} already"
                )
    return out


def read_submission(path: Path) -> list[CommunityValue]:
    """The values of one file that passed `check_submission`."""
    document = json.loads(path.read_text(encoding="utf-8"))
    model, who = document["model"], document["submitter"] or {}
    name = f"{model['name']} (random init)" if model["random"] else model["name"]
    out = []
    for r in document["results"]:
        n, interval = r["n"], r["ci95"]
        remark = [f"95 % interval {interval[0]:.4g} to {interval[1]:.4g}"] if interval else []
        out.append(
            CommunityValue(
                table=TABLE,
                model=name,
                alias=alias_of({"spec": model["spec"]}),
                metric=r["metric"],
                value=float(r["value"]),
                printed=f"{r['value']:.{decimals(r['unit']) + 1}f}",
                unit=r["unit"],
                source=f"{who.get('handle') or who.get('name') or 'anonymous'}, {document['date']}",
                reference=model["link"] or model["spec"],
                protocol={k: str(v) for k, v in flatten(r["protocol"]["params"]).items()},
                note=", ".join([*remark, f"n {n}", *([r["label"]] if r["label"] else [])]),
                model_fingerprint=model["fingerprint"],
                protocol_hash=r["protocol"]["hash"],
                data_fingerprint=r["data"]["fingerprint"],
                ci95=(interval[0], interval[1]) if interval else None,
                n=n,
                measured_on=r["label"],
                command=r["command"],
            )
        )
    return out


def community_rows(folder: Path | None = None) -> list[CommunityValue]:
    """All submitted values, in the order of files and of results in them.

    Args:
        folder: None for the one that came with this package.

    Raises:
        UsageError: a file does not pass its check; names file and field.
    """
    verdicts = check_files(submissions(folder))
    refuse(verdicts)
    return [value for path in verdicts for value in read_submission(path)]


def refuse(verdicts: dict[Path, list[str]]) -> None:
    """Raise for the first problem of `check_files`.

    Raises:
        UsageError: names file and field.
    """
    broken: Sequence[tuple[Path, list[str]]] = [(p, found) for p, found in verdicts.items() if found]
    if broken:
        path, found = broken[0]
        raise UsageError(f"community/{path.name}: {found[0]}", "`mtv-eval results check FILE` lists every problem.")
