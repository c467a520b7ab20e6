"""The house's rules: which way imports run, and what stays out of which folder."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "deployments", "graph", "api", "launch")
CLIENT = "audiocraft_serve"
NEVER = {
    "engine": {
        "deployments",
        "graph",
        "api",
        "ray",
        "fastapi",
        "starlette",
        "pydantic",
        "opentelemetry",
    },
    "deployments": {"graph", "api", "torch", "torchaudio", "audiocraft", "transformers", "fastapi"},
    "graph": {"launch", "torch", "torchaudio", "audiocraft", "transformers"},
    "api": {"launch", "torch", "torchaudio", "audiocraft", "transformers"},
    "launch": {"torch", "torchaudio", "audiocraft", "transformers"},
}
# The engine's modules without torch, which the ingress may load.
LIGHT = {"engine.analysis", "engine.params", "engine.errors", "engine.sources"}


class Import(NamedTuple):
    module: str
    where: str
    """"module", "typing" (under TYPE_CHECKING) or the name of the enclosing function."""


def imports_of(tree: ast.AST, where: str = "module") -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield Import(node.module or "", where)
            yield from (Import(f"{node.module}.{alias.name}", where) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports_of(node, "typing")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports_of(node, node.name)
        else:
            yield from imports_of(node, where)


def modules(root: Path) -> dict[str, list[Import]]:
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = list(imports_of(ast.parse(path.read_text())))
    return found


def violations(root: Path) -> list[str]:
    found = modules(root)
    problems = []
    for name, imports in found.items():
        folder = name.split(".")[0]
        for module, where in imports:
            top = module.split(".")[0]
            if top in NEVER[folder]:
                problems.append(f"{name} imports {module}")
            if folder == "deployments" and top == "engine" and where not in ("typing", "__init__"):
                problems.append(f"{name} imports {module} in {where}")
            heavy = top == "engine" and module in found and module not in {"engine", *LIGHT}
            if folder in ("graph", "api") and heavy:
                problems.append(f"{name} imports {module}, which loads torch")
    arrows = {
        name: {i.module for i in imports if i.module in found and i.where != "typing"}
        for name, imports in found.items()
    }
    return problems + [f"cycle: {' -> '.join(cycle)}" for cycle in cycles(arrows)]


def cycles(arrows: dict[str, set[str]]) -> Iterator[list[str]]:
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> Iterator[list[str]]:
        if name in trail:
            yield [*trail[trail.index(name) :], name]
        elif name not in done:
            for target in sorted(arrows[name]):
                yield from walk(target, [*trail, name])
            done.add(name)

    for name in sorted(arrows):
        yield from walk(name, [])


def client_violations(root: Path) -> list[str]:
    """The client is a distribution of its own: it knows HTTP, and nobody knows it."""
    inside = {"ray", "torch", "numpy", *FOLDERS}
    problems = []
    for path in sorted(root.rglob("*.py")):
        name = str(path.relative_to(root))
        folder = path.relative_to(root).parts[0]
        if folder in {"tests", "demos", "build"} or folder.startswith("."):
            continue
        never = inside if folder == "client" else {CLIENT}
        tops = {one.module.split(".")[0] for one in imports_of(ast.parse(path.read_text()))}
        problems += [f"{name} imports {top}" for top in sorted(tops & never)]
    return problems


def test_imports_run_one_way():
    assert violations(ROOT) == []
    assert client_violations(ROOT) == []


def test_packages_are_empty():
    inits = [path for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")]
    assert len(inits) >= len(FOLDERS)
    assert [path for path in inits if path.read_text()] == []


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("engine/bad.py", "import graph.app", "engine.bad imports graph.app"),
        ("engine/bad.py", "from ray import serve", "engine.bad imports ray"),
        ("engine/bad.py", "def f():\n    import fastapi", "engine.bad imports fastapi"),
        ("deployments/bad.py", "from graph import app", "deployments.bad imports graph"),
        ("deployments/bad.py", "import engine.codec", "engine.codec in module"),
        ("deployments/bad.py", "def f():\n    import engine.codec", "engine.codec in f"),
        ("graph/bad.py", "import torch", "graph.bad imports torch"),
        ("graph/bad.py", "from engine import codec", "engine.codec, which loads torch"),
        ("graph/bad.py", "import graph.bad", "cycle: graph.bad -> graph.bad"),
    ],
)
def test_a_broken_rule_is_found(tmp_path: Path, file: str, source: str, expected: str):
    for name in ("engine/codec.py", "graph/app.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(source)
    assert any(expected in problem for problem in violations(tmp_path)), violations(tmp_path)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("client/audiocraft_serve/bad.py", "from graph import errors"),
        ("client/audiocraft_serve/bad.py", "def f():\n    import torch"),
        ("graph/bad.py", "import audiocraft_serve.client"),
        ("benchmarks/bad.py", "from audiocraft_serve import Client"),
    ],
)
def test_the_client_is_apart(tmp_path: Path, file: str, source: str):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source)
    assert len(client_violations(tmp_path)) == 1


def test_the_ingress_loads_no_torch():
    probe = "import sys, graph.app; print([m for m in ('torch', 'audiocraft') if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
