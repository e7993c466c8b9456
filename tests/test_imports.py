"""Imports point one way (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import transenc

ROOT = Path(transenc.__file__).parent
MODULES = sorted(
    p.relative_to(ROOT.parent).with_suffix("").as_posix().replace("/", ".") for p in ROOT.rglob("*.py")
)

# Each layer may import itself and what is above it in this list.
LAYERS = [
    [
        "transenc",
        "transenc.errors",
        "transenc.seeds",
        "transenc.progress",
        "transenc.registry",
        "transenc.interrupt",
        "transenc.memory",
        "transenc.cores",
    ],
    ["transenc.pairs", "transenc.store", "transenc.lines", "transenc.config"],
    [
        "transenc.metrics",
        "transenc.influence",
        "transenc.words",
        "transenc.formats",
        "transenc.readers",
        "transenc.writers",
        "transenc.scorer",
    ],
    [
        "transenc.agreement",
        "transenc.digests",
        "transenc.tasks",
        "transenc.samplers",
        "transenc.augmenters",
        "transenc.models",
        "transenc.objectives",
        "transenc.averaging",
        "transenc.gradients",
        "transenc.training",
        "transenc.lengths",
        "transenc.unread",
    ],
    [
        "transenc.stages",
        "transenc.evaluation",
        "transenc.export",
        "transenc.runs",
        "transenc.card",
        "transenc.stage",
        "transenc.cycle",
        "transenc.gold_plan",
        "transenc.gold",
    ],
    [
        "transenc.inputs",
        "transenc.record",
        "transenc.runner",
        "transenc.kinds",
        "transenc.parallel",
        "transenc.single",
        "transenc.repeats",
    ],
    ["transenc.session", "transenc.outcome", "transenc.single_stages", "transenc.single_label"],
    ["transenc.cli", "transenc.__main__"],
]


def layer(module: str) -> int:
    for i, names in enumerate(LAYERS):
        for name in names:
            if module == name or (name != "transenc" and module.startswith(f"{name}.")):
                return i
    raise AssertionError(f"{module} is in no layer")


def imported(module: str) -> set[str]:
    path = ROOT.parent / (module.replace(".", "/") + ".py")
    if not path.exists():
        path = ROOT.parent / module.replace(".", "/") / "__init__.py"
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" in MODULES}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_its_own_layer_and_those_below(module: str) -> None:
    name = module.removesuffix(".__init__")
    allowed = layer(name)
    for other in imported(module):
        # models.loading reaches for an engine only when it finds one: the runtime half of export. The front of the
        # package names its public things for type checkers, and imports them when they are asked for.
        if (
            other.startswith("transenc.")
            and (name, other)
            != (
                "transenc.models.loading",
                "transenc.export.engine",
            )
            and name != "transenc"
        ):
            assert layer(other) <= allowed, f"{name} imports {other}"


@pytest.mark.parametrize(
    "module", [m for m in MODULES if not m.startswith(("transenc.cli", "transenc.__main__"))]
)
def test_only_the_command_line_parses_and_prints(module: str) -> None:
    assert not {m.partition(".")[0] for m in imported(module)} & {"typer", "rich", "click"}


def test_the_store_imports_only_errors() -> None:
    assert {m for m in imported("transenc.store") if m.startswith("transenc")} == {"transenc.errors"}


def test_importing_the_package_imports_nothing_else() -> None:
    heavy = "('transenc.', 'numpy', 'torch')"
    code = f"import sys, transenc; print([m for m in sys.modules if m.startswith({heavy})])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
