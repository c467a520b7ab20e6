"""`make serve`, as a person runs it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import soundfile
import yaml

from tests.application import ROOT
from tests.waiting import free_port, until

START_S = 240


@contextmanager
def launched(*arguments: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the launcher; end it, and all it started, whatever happens."""
    command = [sys.executable, "-m", "launch", *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_serve_try_and_stop(tmp_path: Path):
    log, port = tmp_path / "log", free_port()
    with launched("serve_config.yaml", "--port", port, log=log) as process:
        until(lambda: "\ntry " in log.read_text() or process.poll() is not None, START_S)
        lines = log.read_text().splitlines()
        stages = [line.split()[0] for line in lines]
        assert stages == ["starting", *["loading"] * 9, "ready", "logs", "try"], lines
        assert all(
            re.search(r"loading +\w+: ready after \d+\.\d s$", line) for line in lines[1:10]
        ), lines
        curl = lines[-1].removeprefix("try").strip()
        subprocess.run(curl, shell=True, cwd=tmp_path, check=True, capture_output=True)
        assert soundfile.info(tmp_path / "music.wav").duration == 5.0
        judged = httpx.post(
            f"http://127.0.0.1:{port}/analyze",
            files={"audio_file": (tmp_path / "music.wav").read_bytes()},
            timeout=60,
        ).json()
        assert judged["probability"] < 0.5, "the discriminators know what the bundle made"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 5

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert log.read_text().splitlines()[-1].startswith("stopping")
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def test_a_broken_checkpoint_is_named(tmp_path: Path):
    """The file is found broken by the replica; its message reaches the terminal."""
    broken = tmp_path / "codec" / "compression_state_dict.bin"
    broken.parent.mkdir()
    broken.write_bytes(b"PK")
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    config["applications"][0]["args"]["models"] = [
        {"name": "codec", "kind": "encodec", "checkpoint": str(broken.parent)}
    ]
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    log = tmp_path / "log"
    with launched(tmp_path / "serve.yaml", "--port", free_port(), log=log) as process:
        assert process.wait(START_S) == 1
    assert f"{broken}: truncated or not a checkpoint" in log.read_text()


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("  port: 8000", "  port: 8000\n  prot: 1", "http_options.prot: unknown key"),
        ("  port: 8000", "  port: {taken}", "port {taken} on 127.0.0.1 is taken"),
        ("  port: 8000", "  port: 99999", "port 99999: ports are from 1 to 65535"),
        ("tiny/music", "tiny/nothing", "model 'music': bundle:tiny/nothing: this installation has"),
        (
            "      models:",
            "      ingress: {{content_credentials: {{certificates: x.pem, private_key: x.key}}}}\n"
            "      models:",
            "content_credentials.certificates: x.pem: No such file",
        ),
    ],
)
def test_a_wrong_start_is_one_line_and_fast(tmp_path: Path, right: str, wrong: str, message: str):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        text = (ROOT / "serve_config.yaml").read_text()
        text = text.replace(right, wrong.format(taken=taken))
        (tmp_path / "serve.yaml").write_text(text)
        begun = time.monotonic()
        with launched(tmp_path / "serve.yaml", log=tmp_path / "log") as process:
            assert process.wait(60) == 1
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("error: ")
    assert message.format(taken=taken) in line
    assert time.monotonic() - begun < 60


def test_a_machine_that_is_too_small_is_told(tmp_path: Path):
    text = (ROOT / "serve_config.yaml").read_text()
    (tmp_path / "serve.yaml").write_text(text.replace("num_cpus: 1\n", "num_cpus: 4096\n"))
    log = tmp_path / "log"
    with launched(tmp_path / "serve.yaml", "--port", free_port(), log=log) as process:
        assert process.wait(START_S) == 1
    assert "the configuration takes 4096.65 num_cpus, this machine has" in log.read_text()
