"""Prompt templates and class names: the bundled lists of open_clip, and files of the user.

Nothing is copied here. The lists are read from open_clip's `zero_shot_metadata.py` as a file of its own: importing the
package would cost seconds, and protocol hashes need the lists before any model is loaded.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from mtv.errors import DataError, UsageError, unknown
from mtv.hashing import sha256_lines

PLACEHOLDER = "{}"
TEMPLATE_SETS = ("openai80", "siglip81", "siglip8", "openai7", "one")
CLASS_NAME_SETS = ("imagenet",)


def load_templates(name_or_path: str) -> tuple[str, ...]:
    """Prompt templates, each with `{}` where the class name goes.

    Args:
        name_or_path: `openai80` (OpenAI's 80), `openai7` (their short list), `siglip81` and `siglip8` (those plus the
            bare name), `one` ("a photo of {}."), or a text file with one template per line; `{c}` means `{}`.

    Raises:
        UsageError: neither a known set nor a file.
        DataError: a line without placeholder, named by its number; a file without templates.
    """
    if name_or_path in TEMPLATE_SETS:
        return _bundled_templates(name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise _neither(name_or_path, "template set", TEMPLATE_SETS)
    templates = []
    for number, line in _lines(path):
        template = line.replace("{c}", PLACEHOLDER)
        if PLACEHOLDER not in template:
            raise DataError(
                f"{path.name}, line {number}: no {{}} or {{c}} in {line!r}",
                "Every template needs the place of the class name, for example 'a photo of a {}.'.",
            )
        templates.append(template)
    if not templates:
        raise DataError(f"{path.name} holds no template", "Write one per line, for example 'a photo of a {}.'.")
    return tuple(templates)


def load_class_names(name_or_path: str) -> tuple[str, ...]:
    """Class names in the order of the class indices.

    Args:
        name_or_path: `imagenet` (1000 names, in the order of the sorted wnids), or a text file with one name per line.

    Raises:
        UsageError: neither a known set nor a file.
        DataError: a file with fewer than two names; a blank line between names, which would shift all later classes.
    """
    if name_or_path in CLASS_NAME_SETS:
        return tuple(_metadata().IMAGENET_CLASSNAMES)
    path = Path(name_or_path)
    if not path.is_file():
        raise _neither(name_or_path, "class name set", CLASS_NAME_SETS)
    lines = _lines(path)
    for expected, (number, _) in enumerate(lines, start=1):
        if number != expected:
            raise DataError(
                f"{path.name}, line {expected} is blank",
                "Line numbers are class indices: name the class or remove the line.",
            )
    if len(lines) < 2:
        raise DataError(f"{path.name} holds {len(lines)} class names; at least two are needed")
    return tuple(name for _, name in lines)


def fill(templates: Sequence[str], class_name: str) -> list[str]:
    """All prompts of a class. Every placeholder is replaced; braces inside the class name stay as they are."""
    return [template.replace(PLACEHOLDER, class_name) for template in templates]


def list_hash(lines: Iterable[str]) -> str:
    """SHA-256 of the lines joined by LF: how templates and class names enter a protocol."""
    return sha256_lines(lines)


def _bundled_templates(name: str) -> tuple[str, ...]:
    if name == "one":
        return ("a photo of {}.",)
    metadata = _metadata()
    full = name in ("openai80", "siglip81")
    functions = metadata.OPENAI_IMAGENET_TEMPLATES if full else metadata.SIMPLE_IMAGENET_TEMPLATES
    templates = tuple(function(PLACEHOLDER) for function in functions)
    return (*templates, PLACEHOLDER) if name.startswith("siglip") else templates


@functools.lru_cache(maxsize=1)
def _metadata() -> ModuleType:
    """open_clip's file of names and templates, without its package."""
    package = importlib.util.find_spec("open_clip")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        path = Path(folder) / "zero_shot_metadata.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location("_open_clip_zero_shot_metadata", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise UsageError(
        f"open_clip with zero_shot_metadata.py is not installed for {sys.executable}",
        "Install it: pip install 'open_clip_torch>=3.3,<4'.",
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of every line that is not blank, stripped."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8: {error}", "Save the file as UTF-8.") from error
    return [(n, line.strip()) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _neither(name: str, kind: str, known: Iterable[str]) -> UsageError:
    return UsageError(unknown(kind, name, known).message + "; a file of that name does not exist either")
