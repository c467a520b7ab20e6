"""The house's rules: which way imports run, and what stays out of which folder."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import ray

from deployments import ray_private

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "deployments", "graph", "api", "launch")
CLIENT = "audiocraft_serve"
TORCH = {"torch", "torchaudio", "audiocraft", "transformers"}
HTTP = {"fastapi", "starlette"}
NEVER = {
    "engine": {"deployments", "graph", "api", "launch", "ray", "pydantic", "opentelemetry"} | HTTP,
    "deployments": {"graph", "api", "launch"} | HTTP | TORCH,
    "graph": {"api", "launch"} | HTTP | TORCH,
    "api": {"launch"} | TORCH,
    "launch": TORCH,
}
EXCEPTIONS = {("graph.app", "api")}
"""The one file of `graph` that may import `api`, to bind the ingress."""
# The engine's modules without torch, which the ingress may load.
LIGHT = {
    "engine.analysis",
    "engine.params",
    "engine.errors",
    "engine.sources",
    "engine.windows",
}


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
            if top in NEVER[folder] and (name, top) not in EXCEPTIONS:
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


def folder_arrows(root: Path) -> dict[str, set[str]]:
    """Return which folders of `graph` and `api` import which others of the same house."""
    arrows: dict[str, set[str]] = {}
    for name, imports in modules(root).items():
        folder, _, _ = name.rpartition(".")
        if folder.split(".")[0] not in ("graph", "api") or name == "graph.app":
            continue
        targets = {one.module for one in imports if one.where != "typing"}
        found = {module.rpartition(".")[0] for module in targets if module in modules_known(root)}
        same = {one for one in found if one.split(".")[0] == folder.split(".")[0]}
        arrows.setdefault(folder, set()).update(same - {folder})
    return arrows


@cache
def modules_known(root: Path) -> frozenset[str]:
    return frozenset(modules(root))


LOOSE = {"graph", "api"}
"""What lies loose in a house imports its folders and is imported by them: what all of them share,
and what binds them."""


def test_imports_between_folders_run_one_way():
    arrows = {
        folder: {one for one in targets if one not in LOOSE}
        for folder, targets in folder_arrows(ROOT).items()
        if folder not in LOOSE
    }
    everything = set(arrows) | {one for targets in arrows.values() for one in targets}
    assert len(everything) > 8
    complete = {one: arrows.get(one, set()) for one in everything}
    assert [" -> ".join(cycle) for cycle in cycles(complete)] == []


def product_files() -> Iterator[Path]:
    for folder in PRODUCT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name not in ("__init__.py", "__main__.py"):
                yield path


PRODUCT = (*FOLDERS, "k8s", "client", "bundles", "benchmarks")
LEANING = re.compile(r"(The same|Likewise|Of|Such)\b")


def test_no_docstring_leans_on_the_line_above_it():
    leaning = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in product_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and LEANING.match(node.value.value.lstrip())
    ]
    assert leaning == []


SAME_NAME = {
    "audio_files": "the tasks of files, and their routes",
    "cache": "keys and values of the engine, answers of the ingress",
    "client": "the Python client, and a client that makes load",
    "codec": "one model: engine, command line, training, measure of quality",
    "compatible": "the bodies and routes of other services' clients",
    "decoder": "the engine's forward pass, and a stage of training",
    "diffusion": "one model: engine, training",
    "discriminators": "one model: engine, deployment, training, measure of quality",
    "errors": "each house has its own errors",
    "files": "the bodies of the endpoints of files, their answers, and the command line's files",
    "generation": "the task, its bodies, and a measure of quality",
    "jobs": "the queue, its bodies, and its routes",
    "lines": "the measure of spectral lines, and the loss against them",
    "live": "the bodies and routes of live sessions, and the client's",
    "media": "the engine's decoding of uploads, and its deployment",
    "metrics": "the counters of deployments, and those of the ingress",
    "naive": "the server that one writes first, measured alone and under load",
    "plots": "the plots of two benchmarks",
    "rules": "the rules of schemas, and those of manifests",
    "settings": "each house has its own settings",
    "store": "what keeps jobs, and what keeps training data",
    "task": "the base of all tasks, and the task of workflows",
    "workflows": "the bodies, routes and answers of workflows, and the client's",
}
"""Files of one base name that stand for the same thing in several houses, with the reason."""


def test_two_files_share_a_name_only_for_a_reason():
    names = Counter(path.stem for path in product_files())
    shared = {name for name, count in names.items() if count > 1}
    assert shared == SAME_NAME.keys()


PRIVATE = re.compile(r"^\s*from ray[\w.]*(?: import .*\b|\.)_\w|\bray\._", re.MULTILINE)


def test_private_names_of_ray_are_in_one_file():
    """After a change of Ray's release, `deployments/ray_private.py` is to be read again."""
    found = [path for path in product_files() if PRIVATE.search(path.read_text())]
    assert found == [ROOT / "deployments" / "ray_private.py"]
    assert ray.__version__ == ray_private.CHECKED_RELEASE


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
        ("graph/bad.py", "from api import errors", "graph.bad imports api"),
        ("graph/bad.py", "def f():\n    import fastapi", "graph.bad imports fastapi"),
        ("api/bad.py", "import launch.start", "api.bad imports launch.start"),
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


def test_every_file_has_the_version_of_pyproject():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    said = {
        "api/audio/tags.py": r'VERSION = "audiocraft-serve", "(.+)"',
        "client/pyproject.toml": r'^version = "(.+)"',
        "docker-compose.yaml": r"image: audiocraft-serve:(.+)",
        "k8s/base/kustomization.yaml": r"newTag: (.+)",
        "docs/kubernetes.md": r"docker build -t audiocraft-serve:(\S+)",
        "README.md": r"docker build -t audiocraft-serve:(\S+)",
    }
    for file, pattern in said.items():
        assert re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE) == [version], file
