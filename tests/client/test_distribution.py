"""Tests that the client is a distribution of its own with few dependencies."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.application import ROOT

FOLDER = ROOT / "client"
PROJECT = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
HEAVY = ("torch", "ray", "numpy", "fastapi", "engine", "deployments", "graph", "api")


def test_it_depends_on_little():
    names = {re.split(r"[^\w-]", one)[0] for one in PROJECT["dependencies"]}
    assert names == {"httpx", "rich", "typer", "websockets"}


def test_it_loads_nothing_heavy():
    probe = (
        "import sys, audiocraft_serve, audiocraft_serve.cli.main; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", probe], cwd=FOLDER, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_the_wheel_has_all_of_it(tmp_path: Path):
    """The wheel contains every module; uv builds it without a network."""
    subprocess.run(
        [sys.executable, "-m", "uv", "build", "--offline", "--wheel", "-o", tmp_path, FOLDER],
        capture_output=True, check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(path.relative_to(FOLDER)) for path in (FOLDER / "audiocraft_serve").rglob("*.py")
    }
    assert sources | {"audiocraft_serve/py.typed"} <= names
    (entry,) = [one for one in names if one.endswith("entry_points.txt")]
    assert "audiocraft-serve = audiocraft_serve.cli.main:main" in " ".join(
        zipfile.ZipFile(wheel).read(entry).decode().split("\n")
    )
