"""Rows on stdout, as JSON for machines or as aligned columns."""

from __future__ import annotations

import json
from typing import Any

import click


def show_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Rows as JSON, or as aligned columns."""
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        click.echo("nothing to list", err=True)
        return
    columns = list(rows[0])
    widths = {c: max(len(c), *(len(str(r[c])) for r in rows)) for c in columns}
    for line in [{c: c.upper() for c in columns}, *rows]:
        click.echo("  ".join(str(line[c]).ljust(widths[c]) for c in columns).rstrip())
