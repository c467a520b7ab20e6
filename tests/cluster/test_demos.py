"""The notebooks, executed against the running application: they end, and one can listen."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.application import ROOT
from tests.cluster.conftest import Deployed

DEMOS = ROOT / "demos"
NAMES = sorted(path.name for path in DEMOS.glob("*.ipynb"))


@pytest.fixture
def server(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = deployed.address
    monkeypatch.setenv("AUDIOCRAFT_SERVE_URL", f"http://{host}:{port}")
    paths = [str(ROOT / "client"), os.environ["PYTHONPATH"]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str):
    book = nbformat.read(DEMOS / name, as_version=4)
    client = NotebookClient(book, timeout=200, resources={"metadata": {"path": str(DEMOS)}})
    client.execute()
    shown = [
        kind
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        for kind in output.get("data", {})
    ]
    assert "image/png" in shown
    players = [
        output["data"]["text/html"]
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "<audio" in "".join(output.get("data", {}).get("text/html", ""))
    ]
    assert players


def test_they_are_kept_without_outputs_and_listed():
    listed = (DEMOS / "README.md").read_text()
    for name in NAMES:
        assert f"`{name}`" in listed
        cells = nbformat.read(Path(DEMOS / name), as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells), name
