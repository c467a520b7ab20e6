"""docs/architecture.md's diagram is what the code is."""

import re

import yaml
from ray.serve import Application

from graph.app import DEPLOYMENTS, build
from graph.settings import AppArgs
from tests.docs.pages import ROOT, blocks, page
from tests.test_house import modules

PAGE = page("architecture.md")
ALL_KINDS = """
models:
  - {name: musicgen, kind: musicgen, checkpoint: x, codec: encodec}
  - {name: audiogen, kind: audiogen, checkpoint: x, codec: encodec}
  - {name: encodec, kind: encodec, checkpoint: x}
  - {name: mbd, kind: mbd, checkpoint: x, codec: encodec}
  - {name: discriminators, kind: discriminators, checkpoint: x}
"""
EVERYWHERE = {"engine.params", "engine.errors", "engine.fence", "engine.engine", "engine.device"}
"""What is passed around, the fence around a model, its device, and a language model's settings."""
Arrows = set[tuple[str, str]]


def diagram() -> tuple[dict[str, set[str]], Arrows]:
    """Return the boxes of each folder, and the arrows between boxes, by their labels."""
    (source,) = blocks(PAGE, "mermaid")
    labels, boxes, arrows, folder = dict[str, str](), dict[str, set[str]](), Arrows(), ""
    for line in map(str.strip, source.splitlines()[1:]):
        if line.startswith("subgraph"):
            folder = line.split('"')[1].rstrip("/")
        elif line == "end":
            folder = ""
        elif found := re.fullmatch(r'(\w+)(?:\["(.+)"\])?', line):
            name, label = found[1], found[2] or found[1]
            labels[name] = label
            boxes.setdefault(folder, set()).add(label)
        else:
            arrow = re.fullmatch(r"(\w+)(?:\(.+?\))? -->(?:\|.+?\|)? (\w+)(?:\(.+\))?", line)
            assert arrow, line
            arrows.add((arrow[1], arrow[2]))
    known = {(labels.get(a, a), labels.get(b, b)) for a, b in arrows}
    return boxes, {(a, b) for a, b in known if a not in ("client", "proxy")}


def called(application: Application) -> Arrows:
    """Return which deployment is handed which other, by name."""
    bound = application._bound_deployment
    arrows = Arrows()

    def walk(value: object) -> None:
        if isinstance(value, Application):
            arrows.add((bound.name, value._bound_deployment.name))
            arrows.update(called(value))
        elif isinstance(value, dict):
            walk(list(value.values()))
        elif isinstance(value, list | tuple):
            for one in value:
                walk(one)

    walk([bound.init_args, bound.init_kwargs])
    return arrows


def loaded(name: str) -> Arrows:
    """Return which parts of the engine a deployment loads, those of its base class with them."""
    found = modules(ROOT)
    classes = DEPLOYMENTS[name].func_or_class.__mro__
    inside = {one.__module__ for one in classes} & {m for m in found if m.startswith("deployments")}
    parts = {
        one.module
        for module in inside
        for one in found[module]
        if one.where == "__init__" and one.module in found and one.module not in EVERYWHERE
    }
    return {(name, f"{part.replace('.', '/')}.py") for part in parts if part.startswith("engine.")}


def test_boxes_are_the_deployments():
    boxes, _ = diagram()
    real: dict[str, set[str]] = {}
    for name, deployment in DEPLOYMENTS.items():
        folder = deployment.func_or_class.__module__.split(".")[0]
        real.setdefault(folder, set()).add(name)
    assert {folder: boxes[folder] for folder in real} == real


def test_arrows_are_calls_and_imports():
    boxes, arrows = diagram()
    calls = called(build(AppArgs.model_validate(yaml.safe_load(ALL_KINDS))))
    loads = set[tuple[str, str]]().union(*map(loaded, boxes["deployments"]))
    assert len(calls) == len(DEPLOYMENTS) - 1
    assert arrows == calls | loads
    assert boxes["engine"] == {part for _, part in loads}
