"""The rooms of the house know of each other only in the allowed directions (DESIGN.md section 2)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "mtv": "mtv",
    "probes": "mtv.probes",
    "eval": "mtv.eval",
    "leaderboards": "mtv.leaderboards",
    "train": "mtv.train",
}
MAY_IMPORT = {
    "mtv": {"mtv"},
    "probes": {"mtv", "probes"},
    "eval": {"mtv", "probes", "eval"},
    "leaderboards": {"mtv", "leaderboards"},
    "train": {"mtv", "train", "eval"},
}
HEAVY = ("torch", "torchvision", "timm", "open_clip", "transformers")


def room_of(module: str) -> str | None:
    """Room of an `mtv...` module name; None for other packages."""
    if module.split(".")[0] != "mtv":
        return None
    return next((d for d, name in ROOMS.items() if d != "mtv" and (module + ".").startswith(name + ".")), "mtv")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, at run time on import) of every import statement, with `TYPE_CHECKING` blocks left out."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((a.name, top) for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                names = [f"{child.module}.{a.name}" for a in child.names] if child.module == "mtv" else [child.module]
                found.extend((str(n), top) for n in names)
            visit(child, top and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", [d for d in ROOMS if (ROOT / d).is_dir()])
def test_rooms_import_only_what_they_may(room: str) -> None:
    assert sources(room)
    for path in sources(room):
        for module, _ in imports(path):
            other = room_of(module)
            assert module.split(".")[0] not in ("eval", "probes", "leaderboards", "train"), (
                f"{path}: import mtv.{module}"
            )
            if other is None or other in MAY_IMPORT[room]:
                continue
            cli = room == "eval" and other == "leaderboards" and path.parent.name == "commands"
            assert cli, f"{path.relative_to(ROOT)} imports {module}"


def test_leaderboards_and_light_modules_never_import_torch() -> None:
    heavy = ROOT / "mtv" / "collectives.py"
    light = [*sources("leaderboards"), *sources("eval/commands"), *({*(ROOT / "mtv").glob("*.py")} - {heavy})]
    light += sources("mtv/shards")
    names = ("cli", "jobs", "protocol", "protocols", "protocols_dense", "protocols_rel", "store", "suites")
    light += [ROOT / "eval" / f"{name}.py" for name in names]
    for path in light:
        for module, at_import in imports(path):
            heavy = module.split(".")[0] in HEAVY
            inside_command = path.parent.name == "commands" and not at_import
            assert not heavy or inside_command, f"{path.relative_to(ROOT)} imports {module}"


def test_this_test_sees_a_violation(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("from mtv.eval import evaluate\nimport torch\ndef f():\n    import timm\n")
    assert imports(bad) == [("mtv.eval", True), ("torch", True), ("timm", False)]
    assert room_of("mtv.eval") == "eval"
    assert room_of("mtv.evaluation") == "mtv"
    assert room_of("numpy") is None
