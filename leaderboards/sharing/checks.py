"""Whether a record that somebody else wrote can be believed: types, ranges and hashes, each finding with its field.

Notable choices:

* A protocol's hash is made again from what the record says about the protocol, so that a number cannot stand under the
  name of another protocol; no task code is needed for it.
* Per cent lies in [0, 100], except errors (AbsRel of a bad model passes 100) and sums of several metrics.
* Names become parts of file names, so they are held to letters, digits, `.`, `_` and `-`.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any

from mtv.errors import UsageError
from mtv.hashing import sha256_json
from mtv.recipes import Recipe
from mtv.results import SCHEMA_VERSION

UNITS = ("percent", "rank", "m", "m^2", "log10", "classes", "1")
"""Units of the project's metrics; `1` for a ratio without one."""
MISSING = object()
_HEX64 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


class Findings:
    """What is wrong with a document, each with the dotted name of the field."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, field: str, what: str) -> None:
        """Note one problem."""
        self.found.append(f"{field}: {what}")

    def get(self, data: Mapping[str, Any], where: str, name: str, kind: type, *, optional: bool = False) -> Any:
        """The value of a field, or None after noting that it is missing or of another type.

        Args:
            data: object that holds the field.
            where: dotted name of that object; empty for the document.
            name: of the field.
            kind: expected type; `float` takes whole numbers too, and no number may be NaN or infinite.
            optional: whether null is allowed; a missing key never is.
        """
        field = f"{where}.{name}" if where else name
        value = data.get(name, MISSING)
        if value is MISSING:
            self.add(field, "missing")
        elif value is None and optional:
            return None
        elif not _is(value, kind):
            self.add(field, f"expected {_WORDS[kind]}{' or null' if optional else ''}, got {_short(value)}")
        else:
            return value
        return None

    def sha256(self, data: Mapping[str, Any], where: str, name: str) -> str | None:
        """A field of 64 hexadecimal digits."""
        value = self.get(data, where, name, str)
        if value is not None and not _HEX64.fullmatch(value):
            self.add(f"{where}.{name}", f"expected a SHA-256 of 64 hexadecimal digits, got {_short(value)}")
        return value

    def name(self, data: Mapping[str, Any], where: str, name: str) -> str | None:
        """A field that becomes part of a file name."""
        value = self.get(data, where, name, str)
        if value is not None and not is_name(value):
            field = f"{where}.{name}" if where else name
            self.add(field, f"expected letters, digits, '.', '_' and '-', got {_short(value)}")
        return value


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, kind)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_name(text: str) -> bool:
    """Whether `text` is safe as a part of a file name."""
    return _NAME.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Whether `text` is 64 hexadecimal digits."""
    return _HEX64.fullmatch(text) is not None


def moment(text: str) -> datetime.datetime:
    """A record's `created` as a point in time; without a zone it is UTC.

    Raises:
        ValueError: not ISO 8601.
    """
    # Python 3.10 does not read the Z.
    value = datetime.datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text))
    return value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)


def protocol_hash(protocol: Mapping[str, Any]) -> str:
    """The hash that belongs to the `protocol` part of a record, as `mtv.eval.protocol.Protocol.hash` makes it.

    A record shows a field that refers to a list (templates, class names) by name and the list's hash under
    `<field>_sha256`; in the hash the latter stands for the field.

    Args:
        protocol: with `task`, `version` and `params`.
    """
    params = dict(protocol["params"])
    for key in [k for k in params if k.endswith("_sha256") and k.removesuffix("_sha256") in params]:
        params[key.removesuffix("_sha256")] = params.pop(key)
    return sha256_json({"task": protocol["task"], "metric_version": protocol["version"], **params})


def check_protocol(found: Findings, protocol: Mapping[str, Any], where: str, task: str | None) -> None:
    """Id, hash and parameters of a protocol agree.

    Args:
        found: receives the problems.
        protocol: `id, task, preset, version, hash, params`.
        where: dotted name of it.
        task: that it must be for.
    """
    before = len(found.found)
    own = found.get(protocol, where, "task", str)
    preset, stated = found.name(protocol, where, "preset"), found.sha256(protocol, where, "hash")
    name = found.get(protocol, where, "id", str)
    found.get(protocol, where, "version", int)
    found.get(protocol, where, "params", dict)
    if len(found.found) > before:
        return
    if own != task:
        found.add(f"{where}.task", f"{own!r}, but the result is of task {task!r}")
    if name != f"{own}/{preset}#{str(stated)[:8]}":
        found.add(f"{where}.id", f"{name!r} is not {own}/{preset}#{str(stated)[:8]}, which preset and hash give")
    try:
        made = protocol_hash(protocol)
    except TypeError as e:
        found.add(f"{where}.params", str(e))
        return
    if made != stated:
        found.add(f"{where}.hash", f"{str(stated)[:8]}..., but task, version and params give {made[:8]}...")


def check_number(found: Findings, metric: Mapping[str, Any], where: str, *, most: float = 100.0) -> None:
    """Value, unit, interval and counts of one metric.

    Args:
        found: receives the problems.
        metric: `value, unit, ci95, n, n_clusters, higher_is_better`.
        where: dotted name of it.
        most: highest possible per cent.
    """
    value = found.get(metric, where, "value", float, optional=True)
    unit, better = found.get(metric, where, "unit", str), found.get(metric, where, "higher_is_better", bool)
    if unit is not None and unit not in UNITS:
        found.add(f"{where}.unit", f"{unit!r} is not one of {', '.join(UNITS)}")
    for name in ("n", "n_clusters"):
        count = found.get(metric, where, name, int)
        if count is not None and count < 0:
            found.add(f"{where}.{name}", f"{count} is below 0")
    lo, hi = (0.0 if unit == "percent" else -math.inf), (most if unit == "percent" and better else math.inf)
    if value is not None and not lo <= value <= hi:
        found.add(f"{where}.value", f"{value} is outside [{lo:g}, {hi:g}] {unit}")
    _check_interval(found, metric, f"{where}.ci95", value)


def _check_interval(found: Findings, metric: Mapping[str, Any], field: str, value: float | None) -> None:
    ci95 = metric.get("ci95", MISSING)
    if ci95 is MISSING:
        found.add(field, "missing")
        return
    if ci95 is None:
        return
    if not isinstance(ci95, (list, tuple)) or len(ci95) != 2 or not all(_is(v, float) for v in ci95):
        found.add(field, f"expected two numbers or null, got {_short(ci95)}")
    elif value is None:
        found.add(field, "an interval without a value")
    elif ci95[0] > ci95[1]:
        found.add(field, f"{ci95[0]} is above {ci95[1]}")
    elif not ci95[0] <= value <= ci95[1]:
        found.add(field, f"[{ci95[0]}, {ci95[1]}] does not contain the value {value}")


def record_problems(record: Any, where: str = "record") -> list[str]:
    """What is wrong with a result record that came from elsewhere; empty if nothing is.

    Args:
        record: as read from JSON.
        where: name of it in the messages.
    """
    found = Findings()
    if not isinstance(record, dict):
        return [f"{where}: expected an object, got {_short(record)}"]
    version = found.get(record, where, "schema_version", int)
    if version not in (None, SCHEMA_VERSION):
        found.add(f"{where}.schema_version", f"{version}, this mtv reads {SCHEMA_VERSION}")
    _check_head(found, record, where)
    task = found.name(record, where, "task")
    if (protocol := found.get(record, where, "protocol", dict)) is not None:
        check_protocol(found, protocol, f"{where}.protocol", task)
    if (model := found.get(record, where, "model", dict)) is not None:
        found.get(model, f"{where}.model", "spec", str)
        found.sha256(model, f"{where}.model", "fingerprint")
    if (data := found.get(record, where, "data", dict)) is not None:
        found.get(data, f"{where}.data", "name", str)
        found.get(data, f"{where}.data", "label", str)
        found.sha256(data, f"{where}.data", "fingerprint")
    for name, metric in (found.get(record, where, "metrics", dict) or {}).items():
        _check_metric(found, metric, f"{where}.metrics[{name}]", name, str(task))
    return found.found


def _check_head(found: Findings, record: Mapping[str, Any], where: str) -> None:
    status = found.get(record, where, "status", str)
    if status not in (None, "complete", "partial"):
        found.add(f"{where}.status", f"{status!r} is not complete or partial: only results with numbers are shared")
    created = found.get(record, where, "created", str)
    try:
        moment(created or "2000-01-01")
    except ValueError:
        found.add(f"{where}.created", f"{created!r} is not an ISO 8601 time")
    for name in ("run", "env", "details", "ties"):
        found.get(record, where, name, dict)


def _check_metric(found: Findings, metric: Any, where: str, name: str, task: str) -> None:
    if not isinstance(metric, dict):
        found.add(where, f"expected an object, got {_short(metric)}")
        return
    if not name.startswith(f"{task}/"):
        found.add(where, f"the name does not begin with {task}/")
    found.get(metric, where, "headline", bool)
    found.get(metric, where, "chance", float, optional=True)
    recipe = found.get(metric, where, "recipe", dict)
    most = 100.0
    try:
        if recipe is not None and (made := Recipe.from_dict(recipe)).kind == "sum":
            most = 100.0 * len(made.of)
    except (TypeError, UsageError) as e:
        found.add(f"{where}.recipe", str(e))
    check_number(found, metric, where, most=most)
