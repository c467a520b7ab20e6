"""The commands that pages tell are there, and the README's first ones work.

The curls of docs/api.md are run by `tests/cluster/test_docs.py`.
"""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import uvicorn

from api.ingress import create_app
from api.settings import UserConfig
from deployments.settings import EnCodecSettings, MusicGenSettings
from engine import media
from engine.params import MediaLimits
from graph.settings import FolderStore, JobsSettings
from tests.api.conftest import FakeCodec, FakeLanguageModel, Media, serving
from tests.docs.pages import DOCS, ROOT

README = (ROOT / "README.md").read_text()
TEXT = "\n".join(path.read_text() for path in [*ROOT.glob("*.md"), *DOCS.glob("*.md")])
DEFAULT = "http://127.0.0.1:8000"
LIMITS = MediaLimits(10**8, 60, 2)


def test_every_target_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", TEXT, re.MULTILINE))
    assert len(told) > 5
    assert told <= targets


def test_every_module_that_is_run_is_there():
    told = set(re.findall(r"python -m ([a-z0-9_.]+[a-z0-9_])", TEXT))
    assert len(told) > 3
    assert [name for name in told if find_spec(name) is None] == []


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """The application over fakes of its models, at a port of this machine."""
    models = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
    ]
    handles = {"music": FakeLanguageModel(), "codec": FakeCodec(), "media": Media()}
    jobs = JobsSettings(store=FolderStore(folder=str(tmp_path / "jobs")))
    app = create_app(serving(models, handles, UserConfig(), settings=jobs))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    (listening,) = server.servers[0].sockets
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await task


async def run(script: str, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script,
        cwd=folder, env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs Debian's package curl")
async def test_the_readmes_curls_work(address: str, tmp_path: Path):
    scripts = [one for one in re.findall(r"```\n(.*?)```", README, re.DOTALL) if DEFAULT in one]
    (tmp_path / "ffplay").write_text("#!/bin/sh\ncat > played.mp3\n")  # needs a screen and a card
    (tmp_path / "ffplay").chmod(0o755)
    for script in scripts:
        await run(script.replace(DEFAULT, address), tmp_path)
    assert len(scripts) == 2
    assert media.decode((tmp_path / "music.wav").read_bytes(), LIMITS).seconds == 5
    assert media.decode((tmp_path / "played.mp3").read_bytes(), LIMITS).seconds == pytest.approx(
        20, abs=0.2
    )
