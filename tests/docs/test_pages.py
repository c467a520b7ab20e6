"""Every page is in the index, every link leads somewhere, every file that is named is there."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, blocks_out, named, page

README = (ROOT / "README.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
FOLDERS = [path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
NAME_IN_FILE = re.compile(r"`([\w/]+\.py)`((?:,? `\w+`)+)")


def test_every_page_is_in_the_index():
    listed = set(re.findall(r"^- \[(.+?)\]", page("README.md"), re.MULTILINE))
    there = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert listed == there


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    targets = {(path.parent / link).resolve() for link in LINK.findall(path.read_text())}
    assert [target for target in targets if not target.exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_are_named_are_there(path: Path):
    text = blocks_out(path.read_text())
    files = {
        one for one in named(text) if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*[\w/]", one)
    }
    made = {"build/jobs"}
    missing = {one for one in files - made if not (ROOT / one).exists()}
    assert missing == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_names_are_in_the_files_that_are_said_to_have_them(path: Path):
    for file, names in NAME_IN_FILE.findall(path.read_text()):
        assert set(re.findall(r"\w+", names)) <= defined(ROOT / file), file


def test_names_are_looked_for():
    assert len(NAME_IN_FILE.findall(page("architecture.md"))) > 15


def defined(path: Path) -> set[str]:
    """Return the names of a file's classes, functions and assignments."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Assign(targets=[*targets]):
                found |= {ast.unparse(target) for target in targets}
            case ast.AnnAssign(target=target):
                found.add(ast.unparse(target))
    return found


def test_the_readme_is_short():
    assert len(README.splitlines()) < 200


def tree_of_the_house() -> dict[str, str]:
    """Return what docs/architecture.md says of each folder."""
    text = page("architecture.md")
    (block,) = re.findall(r"^## The house\n.*?^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    parts = re.split(r"^(\w[\w/]*/)", block, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_house_has_every_folder():
    found = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {file.split("/")[0] for file in found if "/" in file and not file.startswith(".")}
    assert folders == {folder.split("/")[0] for folder in tree_of_the_house()}


@pytest.mark.parametrize("folder", ["engine/", "deployments/", "graph/", "api/"])
def test_the_house_has_no_file_that_is_gone(folder: str):
    files = re.findall(r"[a-z_]+\.py|[a-z]+/(?=\s)", tree_of_the_house()[folder])
    assert len(files) > 5
    assert [one for one in files if not (ROOT / folder / one).exists()] == []
