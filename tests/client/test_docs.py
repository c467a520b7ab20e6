"""docs/client.md, tried."""

import re
from pathlib import Path

from tests.application import ROOT
from tests.client.conftest import Served
from tests.client.test_cli import files_in
from tests.client.test_client import seconds
from tests.client.test_process import python, shell

PAGE = (ROOT / "docs" / "client.md").read_text()


def blocks(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found
    return "\n".join(found)


async def test_the_python(served: Served, tmp_path: Path):
    code, stdout, stderr = await python(served, tmp_path, blocks("python"))
    assert code == 0, stderr
    told = stdout.decode()
    assert "bytes, as they were made" in told
    assert "('fast drums', 1, 1.0)" in told
    assert "duration: " in told.splitlines()[-1]
    assert seconds(files_in(tmp_path)["longer.wav"]) == 5


async def test_the_shell(served: Served, tmp_path: Path):
    script = blocks("sh")
    code, stdout, stderr = await shell(served, tmp_path, f"set -eu\n{script}")
    assert code == 0, stderr
    assert b"music" in stdout
    found = files_in(tmp_path)
    named = set(re.findall(r"(?:-o|>) (\S+\.\w+)", script))
    assert len(named) == 7
    assert named <= set(found)
    assert "beat.flac" in found


async def test_every_command_is_told(served: Served, tmp_path: Path):
    _, stdout, _ = await shell(served, tmp_path, "COLUMNS=200 audiocraft-serve --help")
    commands = set(re.findall(r"^│ (\w+) ", stdout.decode(), re.MULTILINE))
    assert "generate" in commands
    assert not {one for one in commands if not re.search(rf"(`|serve ){one}\b", PAGE)}
