"""Spec strings: the one way to name a model. No torch here.

    spec      = alias | scheme ":" body [ "?" key=value { "&" key=value } ]
    open_clip : ARCH "/" TAG | ARCH "@" FILE | ARCH "@random"
    timm      : NAME | NAME "@" FILE | NAME "@random"
    hf        : ORG "/" NAME ["@" REV] | "./" DIR | "/" DIR | "./" DIR "@random"
    mtv       : RUN_DIR [ "/step_" N ]
    python    : (MODULE | FILE.py) ":" FACTORY

Other schemes come from the entry-point group `mtv.encoders`; their body is kept whole in `name`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from mtv.encoders.aliases import ALIASES
from mtv.encoders.options import plain_key
from mtv.errors import UsageError, unknown

SCHEMES = ("open_clip", "timm", "hf", "mtv", "python")
ENTRY_POINT_GROUP = "mtv.encoders"
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<spec>.+)")
CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A parsed spec. Nothing was opened or imported yet."""

    scheme: str
    """Backend: open_clip, timm, hf, mtv, python or an entry-point name."""
    name: str
    """open_clip: architecture; timm: model name with its tag; hf: `org/name`, or the directory's last component; mtv:
    the run's last component; python: the factory."""
    tag: str | None = None
    """open_clip: pretrained tag; mtv: `step_N`; python: the module's dotted name when it is not a file."""
    file: str | None = None
    """Local path as given: checkpoint (open_clip, timm), directory (hf, mtv), source file (python)."""
    revision: str | None = None
    """hf: branch, tag or commit."""
    random: bool = False
    """Random initialisation asked for."""
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    """Keys and raw values after `?`."""
    alias: str | None = None
    """The alias under which the user asked for it, or the name put in front of the spec."""
    text: str
    """The spec with aliases resolved and options sorted."""

    @property
    def public(self) -> str:
        """`text` without machine-specific directories: a path is cut to its last component."""
        text = self.text
        for value in self.options.values():
            if "/" in value and Path(value).exists():
                text = text.replace(f"={value}", f"={Path(value).name}", 1)
        if self.file is None:
            return text
        short = Path(self.file.rstrip("/")).name
        whole = text.partition(":")[2].startswith(self.file)
        return text.replace(self.file, f"./{short}" if whole and self.scheme != "python" else short, 1)


def parse_spec(text: str) -> ModelSpec:
    """Parse one spec string: `[NAME=]SPEC`, where NAME is what results and tables will call the model.

    Raises:
        UsageError: unknown scheme or alias (with the nearest spellings), unknown option, or a body that does not fit
            the scheme's grammar; the message repeats the spec.
    """
    alias, given = _split_name(text.strip())
    body, options = _split_options(given)
    scheme, colon, rest = body.partition(":")
    if not colon:
        if body not in ALIASES:
            raise _unknown_alias(body)
        alias = alias or body
        target, built_in = _split_options(ALIASES[body].spec)
        options = {**built_in, **options}
        scheme, _, rest = target.partition(":")
    if not rest:
        raise _malformed(text, f"nothing follows '{scheme}:'")
    parser = _PARSERS.get(scheme)
    if parser is None and scheme not in _plugin_schemes():
        raise unknown("model scheme", scheme, [*SCHEMES, *_plugin_schemes()])
    fields = parser(rest, text) if parser else {"name": rest}
    suffix = "&".join(f"{k}={v}" for k, v in sorted(options.items()))
    canonical = f"{scheme}:{rest}" + (f"?{suffix}" if suffix else "")
    return ModelSpec(scheme=scheme, options=options, alias=alias, text=canonical, **fields)


def expand_specs(texts: Sequence[str]) -> list[ModelSpec]:
    """Parse specs, with `@FILE` replaced by its lines and a directory of checkpoints by its files in sorted order.

    A line of such a file is a spec; `#` starts a comment. Equal specs are kept once, at their first position.

    Raises:
        UsageError: as `parse_spec` (with file and line), an unreadable list, a directory without checkpoints.
    """
    specs: dict[str, ModelSpec] = {}
    for text in texts:
        for spec in _read_list(Path(text[1:])) if text.startswith("@") else [parse_spec(text)]:
            for one in _expand_directory(spec):
                specs.setdefault(one.text, one)
    return list(specs.values())


def _read_list(path: Path) -> list[ModelSpec]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(
            f"cannot read the list of models {path}: {e}", "Give a text file with one spec per line."
        ) from e
    specs = []
    for number, line in enumerate(lines, start=1):
        content = re.split(r"(?:^|\s)#", line)[0].strip()
        if not content:
            continue
        if content.startswith("@"):
            raise UsageError(f"{path}:{number}: a list of models cannot include another list: {content}")
        try:
            specs.append(parse_spec(content))
        except UsageError as e:
            raise UsageError(f"{path}:{number}: {e.message}", e.hint) from e
    if not specs:
        raise UsageError(f"{path} holds no model spec", "Write one spec per line, for example clip-b16.")
    return specs


def _expand_directory(spec: ModelSpec) -> list[ModelSpec]:
    if spec.scheme not in ("open_clip", "timm") or spec.file is None or not Path(spec.file).is_dir():
        return [spec]
    if spec.text.startswith(f"{spec.scheme}:{spec.file}"):  # a model in open_clip's local-dir layout
        return [spec]
    files = sorted(p for p in Path(spec.file).iterdir() if p.suffix in CHECKPOINT_SUFFIXES and p.is_file())
    if not files:
        raise UsageError(
            f"{spec.text}: the directory {spec.file} holds no checkpoint",
            f"Files ending in {', '.join(CHECKPOINT_SUFFIXES)} are taken, not those in folders below it.",
        )
    prefix = spec.file if spec.file.endswith("/") else f"{spec.file}/"
    out = []
    for path in files:
        file = prefix + path.name
        alias = spec.alias and f"{spec.alias}-{path.stem}"
        text = spec.text.replace(f"@{spec.file}", f"@{file}", 1)
        out.append(dataclasses.replace(spec, file=file, alias=alias, text=text))
    return out


def _split_name(text: str) -> tuple[str | None, str]:
    """The user's own name in front of a spec, and the spec."""
    found = _NAMED.fullmatch(text)
    if found is None:
        return None, text
    if found["name"] in ALIASES:
        raise UsageError(f"{text}: {found['name']!r} is a built-in alias", "Give this model another name.")
    return found["name"], found["spec"]


def _split_options(text: str) -> tuple[str, dict[str, str]]:
    body, mark, tail = text.partition("?")
    options: dict[str, str] = {}
    for part in tail.split("&") if mark else []:
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise _malformed(text, f"option {part!r} is not key=value")
        if plain_key(key) in options:
            raise _malformed(text, f"option {key!r} stands twice")
        options[plain_key(key)] = value
    return body, options


def _library(rest: str, text: str) -> dict[str, object]:
    """NAME@FILE, NAME@random or NAME alone (open_clip splits its tag off afterwards)."""
    name, at, file = rest.partition("@")
    if not name or (at and not file):
        raise _malformed(text, "the architecture or the file is empty")
    if file == "random":
        return {"name": name, "random": True}
    return {"name": name, "file": file or None}


def _directory(rest: str) -> dict[str, object] | None:
    """Fields of a local directory, which begins with ./, ../ or /; None for anything else."""
    if not rest.startswith(("./", "../", "/")):
        return None
    # A directory name may itself hold an '@', so only the word random is special there.
    directory, random = (rest[: -len("@random")], True) if rest.endswith("@random") else (rest, False)
    return {"name": Path(directory).name or directory, "file": directory, "random": random}


def _open_clip(rest: str, text: str) -> dict[str, object]:
    if local := _directory(rest):
        return local
    fields = _library(rest, text)
    if "@" in rest:
        return fields
    name, slash, tag = rest.partition("/")
    if not slash or not tag or not name:
        raise _malformed(text, "open_clip needs ARCH/TAG, ARCH@FILE, ARCH@random or ./DIR")
    return {"name": name, "tag": tag}


def _hf(rest: str, text: str) -> dict[str, object]:
    if local := _directory(rest):
        return local
    name, at, revision = rest.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or (at and not revision):
        raise _malformed(text, f"hf needs ORG/NAME[@REV], or ./DIR{local_twin(name)}")
    if revision == "random":
        return {"name": name, "random": True}
    return {"name": name, "revision": revision or None}


def _mtv(rest: str, text: str) -> dict[str, object]:
    match = re.fullmatch(r"(.+?)(?:/(step_\d+))?/?", rest)
    if match is None:
        raise _malformed(text, "mtv needs RUN_DIR or RUN_DIR/step_N")
    run, step = match.groups()
    return {"name": Path(run).name or run, "file": run, "tag": step}


def _python(rest: str, text: str) -> dict[str, object]:
    module, colon, factory = rest.rpartition(":")
    if not colon or not module or not factory.isidentifier():
        raise _malformed(text, "python needs MODULE:FACTORY or FILE.py:FACTORY")
    if module.endswith(".py"):
        return {"name": factory, "file": module}
    if not all(part.isidentifier() for part in module.split(".")):
        raise _malformed(text, f"{module!r} is neither a dotted module name nor a .py file")
    return {"name": factory, "tag": module}


_PARSERS = {"open_clip": _open_clip, "timm": _library, "hf": _hf, "mtv": _mtv, "python": _python}


def local_twin(name: str) -> str:
    """Half a sentence for error messages when a hub name is also a path here; empty otherwise."""
    return f" ({name!r} also exists locally: write ./{name} to mean that)" if name and Path(name).exists() else ""


def _plugin_schemes() -> list[str]:
    from importlib.metadata import entry_points

    return [e.name for e in entry_points(group=ENTRY_POINT_GROUP)]


def _unknown_alias(name: str) -> UsageError:
    error = unknown("model alias", name, ALIASES)
    hint = "Write an alias (mtv-eval ls models) or SCHEME:NAME, for example timm:vit_base_patch14_dinov2.lvd142m."
    return UsageError(error.message + local_twin(name), hint)


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(
        f"model spec {text!r}: {why}",
        "Examples: clip-b16, open_clip:ViT-B-16@weights.pt, timm:NAME@random?seed=0, hf:./export, python:./my.py:build",
    )
