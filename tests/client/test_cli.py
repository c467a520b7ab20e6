"""Tests the command line against the real routes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from audiocraft_serve.cli import player as player_module
from audiocraft_serve.cli.main import app
from engine.errors import GenerationFailed
from tests.client.conftest import Served
from tests.client.test_client import make_wav, read_seconds
from tests.waiting import free_port

Cli = Callable[..., Awaitable[Result]]


@pytest.fixture
def cli(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that runs a command in the test's folder, on a thread beside the server."""
    monkeypatch.chdir(tmp_path)

    async def run(*arguments: object, data: bytes | None = None, **environment: str) -> Result:
        words = [str(one) for one in arguments]
        return await asyncio.to_thread(
            CliRunner().invoke, app, words, input=data, env=served.environment | environment
        )

    return run


def check_ok(result: Result) -> Result:
    """Return the result of a command that must have succeeded."""
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result


def read_error(result: Result) -> dict[str, Any]:
    """Return the JSON error that a command with --json has printed."""
    error: dict[str, Any] = json.loads(result.stderr)
    return error


def read_files(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder by name, partly written ones too."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def list_audio(folder: Path) -> list[str]:
    """Return the names of the WAV files below a folder, partly written ones too."""
    return [name for name in read_files(folder) if ".wav" in name]


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.MP3", "a.opus", "a.ogg", "a.pcm"])
async def test_the_ending_says_the_format(cli: Cli, served: Served, tmp_path: Path, name: str):
    result = check_ok(await cli("generate", "calm piano", "-d", 1, "--seed", 3, "-o", name))
    assert result.stdout == ""
    assert name in result.stderr
    assert "seed 3" in result.stderr
    data = (tmp_path / name).read_bytes()
    if not name.endswith("pcm"):
        assert read_seconds(data) == pytest.approx(1, abs=0.1)
    else:
        assert len(data) == 32000
    assert not [one for one in read_files(tmp_path) if one.endswith(".part")]


async def test_json_says_what_was_made(cli: Cli, tmp_path: Path):
    made = check_ok(await cli("generate", "a", "b", "-n", 2, "-d", 1, "-o", "x.wav", "--json"))
    facts = json.loads(made.stdout)
    assert [clip["path"] for clip in facts["clips"]] == [f"x-{one}.wav" for one in (1, 2, 3, 4)]
    assert [clip["prompt"] for clip in facts["clips"]] == ["a", "a", "b", "b"]
    assert {clip["duration"] for clip in facts["clips"]} == {1}
    assert facts["model"] == "music"
    assert made.stderr == ""
    assert all((tmp_path / clip["path"]).stat().st_size > 32000 for clip in facts["clips"])


async def test_stdin_and_stdout(cli: Cli, served: Served):
    result = check_ok(await cli("generate", "-", "-d", 1, "-o", "-", data=b"calm piano\n"))
    assert read_seconds(result.stdout_bytes) == 1
    assert served.music.seen[0].text == "calm piano"


async def test_a_stream_is_the_file(cli: Cli, tmp_path: Path):
    wanted = ("generate", "a", "-d", 2, "--seed", 1, "-f", "pcm")
    piped = check_ok(await cli(*wanted, "--stream", "-"))
    assert len(piped.stdout_bytes) == 64000
    check_ok(await cli(*wanted, "--stream", "a.pcm"))
    assert (tmp_path / "a.pcm").read_bytes() == piped.stdout_bytes


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "a"),
        ("generate", "a", "-o", "a.wav", "--stream", "-"),
        ("generate", "a", "-o", "a.doc"),
        ("generate", "a", "-o", "a.wav", "--format", "midi"),
        ("generate", "a", "b", "--stream", "-"),
        ("generate", "a", "-n", "2", "-o", "-"),
        ("generate", "a", "-o", "-", "--json"),
        ("generate", "-o", "a.wav"),
        ("continue", "missing.wav", "a", "-o", "a.wav"),
        ("decode", "missing.json", "-o", "a.wav"),
        ("models", "--url", "localhost:8000"),
        ("nothing",),
    ],
)
async def test_a_wrong_command_line(cli: Cli, served: Served, arguments: tuple[str, ...]):
    result = await cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr
    assert not served.music.seen


async def test_a_refusal(cli: Cli, tmp_path: Path):
    result = await cli("generate", "a", "-d", 1000, "-o", "a.wav")
    assert result.exit_code == 1
    assert "duration: 1000 s; allowed: from 0.02 to 30 s" in result.stderr
    told = read_error(await cli("generate", "a", "-d", 1000, "-o", "a.wav", "--json"))
    assert told["error"]["code"] == "invalid_value"
    assert told["error"]["param"] == "duration"
    assert told["request_id"]
    assert not list_audio(tmp_path)


async def test_what_fails_on_its_way_leaves_no_half_file(cli: Cli, served: Served, tmp_path: Path):
    served.music.error, served.music.fails_at = GenerationFailed("broken"), 1
    for how in ("-o", "--stream"):
        result = await cli("generate", "a", "-d", 3, how, "a.wav")
        assert result.exit_code in (1, 3)
        assert "error: " in result.stderr
    assert not list_audio(tmp_path)


async def test_nobody_listens(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("audiocraft_serve.retries.FIRST_S", 0.0)
    url = f"http://127.0.0.1:{free_port()}"
    result = await cli("models", AUDIOCRAFT_SERVE_URL=url)
    assert result.exit_code == 3
    assert "cannot be reached" in result.stderr
    result = await cli("bench", "--url", url, "--json")
    assert (result.exit_code, read_error(result)["error"]["code"]) == (3, "not_reachable")


async def test_no_key(cli: Cli):
    result = await cli("models", AUDIOCRAFT_SERVE_API_KEY="")
    assert (result.exit_code, "no API key" in result.stderr) == (1, True)
    check_ok(await cli("models", "--api-key", "the-key-of-the-tests", AUDIOCRAFT_SERVE_API_KEY=""))


async def test_a_continuation_and_a_melody(cli: Cli, served: Served, tmp_path: Path):
    (tmp_path / "in.wav").write_bytes(make_wav(2))
    part = ("--start", 0.5, "--end", 1.5, "--no-include-prompt")
    check_ok(await cli("continue", "in.wav", "b", "-d", 3, *part, "-o", "on.wav"))
    assert read_seconds((tmp_path / "on.wav").read_bytes()) == 2
    check_ok(await cli("continue", "-", "b", "-d", 3, "-o", "on.wav", data=make_wav(2)))
    assert read_seconds((tmp_path / "on.wav").read_bytes()) == 3
    check_ok(await cli("melody", "in.wav", "b", "-d", 1, "-m", "hum", "-o", "hum.wav"))
    assert served.hum.seen[0].melody is not None
    both = await cli("melody", "-", "-", "-o", "x.wav", data=make_wav(1))
    assert both.exit_code == 2


async def test_codes_there_and_back(cli: Cli, tmp_path: Path):
    (tmp_path / "in.wav").write_bytes(make_wav(1))
    piped = check_ok(await cli("encode", "in.wav", "--codebooks", 2))
    assert json.loads(piped.stdout)["codebooks"] == 2
    (tmp_path / "a.json").write_bytes(piped.stdout_bytes)
    check_ok(await cli("encode", "in.wav", "--codebooks", 2, "-o", "a.safetensors"))
    for name in ("a.json", "a.safetensors"):
        result = check_ok(await cli("decode", name, "-o", f"{name}.wav", "--json"))
        assert json.loads(result.stdout)["path"] == f"{name}.wav"
    from_json, from_file = ((tmp_path / f"a.{e}.wav").read_bytes() for e in ("json", "safetensors"))
    assert from_json == from_file
    assert (await cli("decode", "-", "-o", "a.wav", data=b'{"codes": [[1]]}')).exit_code == 2
    assert (await cli("decode", "a.json", "-o", "a.mp3")).exit_code == 2
    piped = check_ok(await cli("decode", "-", "-o", "-", data=(tmp_path / "a.json").read_bytes()))
    assert piped.stdout_bytes == from_json


async def test_an_analysis(cli: Cli, tmp_path: Path):
    (tmp_path / "in.wav").write_bytes(make_wav(1))
    assert "mpd score" in check_ok(await cli("analyze", "in.wav")).stdout
    found = json.loads(check_ok(await cli("analyze", "-", "--json", data=make_wav(1))).stdout)
    assert found["model"] == "judge"


async def test_models(cli: Cli):
    shown = check_ok(await cli("models")).stdout
    assert all(name in shown for name in ("music", "musicgen", "judge"))
    listed = json.loads(check_ok(await cli("models", "--json")).stdout)
    assert {one["id"] for one in listed} >= {"music", "sound"}


async def test_jobs(cli: Cli, tmp_path: Path):
    job = check_ok(await cli("jobs", "submit", "calm piano", "-d", 1, "-f", "flac")).stdout.strip()
    result = check_ok(await cli("jobs", "wait", job, "-o", "a.flac"))
    assert read_seconds((tmp_path / "a.flac").read_bytes()) == 1
    assert "a.flac" in result.stderr
    assert check_ok(await cli("jobs", "status", job)).stdout == "finished\n"
    assert json.loads(check_ok(await cli("jobs", "status", job, "--json")).stdout)["progress"] == 1
    check_ok(await cli("jobs", "fetch", job, "-o", "b.flac"))
    assert (tmp_path / "b.flac").read_bytes() == (tmp_path / "a.flac").read_bytes()
    assert check_ok(await cli("jobs", "cancel", job)).stdout == "finished\n"
    listed = check_ok(await cli("jobs", "list", "--status", "finished")).stdout
    assert listed == f"{job}  finished\n"
    assert json.loads(check_ok(await cli("jobs", "list", "--json")).stdout)[0]["id"] == job
    check_ok(await cli("jobs", "delete", job))
    gone = await cli("jobs", "status", job)
    assert (gone.exit_code, "no job" in gone.stderr) == (1, True)


async def test_a_job_that_fails(cli: Cli, served: Served):
    served.music.error = GenerationFailed("broken")
    job = check_ok(await cli("jobs", "submit", "a", "-d", 1)).stdout.strip()
    assert (await cli("jobs", "wait", job)).exit_code == 1


LINES = [
    {"prompt": "calm piano", "duration": 1},
    {"prompt": "Fast drums!", "name": "drums", "format": "flac", "n": 2},
    {"prompt": "x" * 101},
    {"prompt": "b", "name": "../b"},
    {"prompt": "c", "tempo": 3},
    {"text": "c"},
    {"prompt": "d", "name": "drums-1", "format": "flac"},
]


async def test_a_batch(cli: Cli, served: Served, tmp_path: Path):
    text = "\n".join(["", *map(json.dumps, LINES), "{"])
    (tmp_path / "in.jsonl").write_text(text)
    result = await cli("batch", "in.jsonl", "-o", "out/deep", "-d", 0.5)
    assert result.exit_code == 1
    assert "2 generated, 0 already there, 6 failed" in result.stderr
    for number in range(4, 10):
        assert f"line {number}: " in result.stderr
    made = {
        name: read_seconds(data) for name, data in read_files(tmp_path / "out" / "deep").items()
    }
    (calm,) = made.keys() - {"drums-1.flac", "drums-2.flac"}
    assert calm.startswith("calm-piano-")
    assert made == {calm: 1, "drums-1.flac": 0.5, "drums-2.flac": 0.5}
    told = await cli("batch", "in.jsonl", "-o", "out/deep", "-d", 0.5, "--json")
    assert (told.exit_code, told.stderr) == (1, "")
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert {one["line"] for one in lines if one["status"] == "there"} == {2, 3}
    failed = {one["line"]: one["error"]["code"] for one in lines if one["status"] == "failed"}
    assert failed == dict.fromkeys(range(5, 10), "failed") | {4: "invalid_value"}


async def test_a_batch_goes_on_where_it_was_left(cli: Cli, served: Served, tmp_path: Path):
    lines = [{"prompt": f"p{one}", "duration": 0.5, "name": f"p{one}"} for one in range(5)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    wanted = ("batch", "in.jsonl", "-o", "out", "--parallel", 2, "--json")
    first = check_ok(await cli(*wanted))
    made = [json.loads(line) for line in first.stdout.splitlines()]
    assert sorted(one["line"] for one in made) == [1, 2, 3, 4, 5]
    assert {one["status"] for one in made} == {"made"}
    (tmp_path / "out" / "p3.wav").unlink()
    asked = len(served.music.seen)
    again = [json.loads(line) for line in check_ok(await cli(*wanted)).stdout.splitlines()]
    assert {one["line"]: one["status"] for one in again} == {
        1: "there", 2: "there", 3: "there", 4: "made", 5: "there",
    }  # fmt: skip
    assert len(served.music.seen) == asked + 1


async def test_a_batch_stops_where_nobody_listens(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("audiocraft_serve.retries.FIRST_S", 0.0)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    url = f"http://127.0.0.1:{free_port()}"
    result = await cli("batch", "in.jsonl", "-o", "out", "--url", url)
    assert result.exit_code == 3
    result = await cli("batch", "in.jsonl", "-o", "out", "--api-key", "wrong")
    assert (result.exit_code, "not known" in result.stderr) == (1, True)


async def test_a_bench(cli: Cli):
    wanted = ("bench", "-c", 1, "-c", 3, "-d", 1, "--requests", 4)
    result = check_ok(await cli(*wanted))
    *table, line = result.stdout.strip().splitlines()
    assert "first p50" in table[0]
    facts = json.loads(line)
    assert [(one["concurrency"], one["done"], one["failed"]) for one in facts["results"]] == [
        (1, 4, 0), (3, 4, 0),
    ]  # fmt: skip
    for one in facts["results"]:
        assert 0 < one["first_audio_s"]["p50"] <= one["first_audio_s"]["p95"]
        assert one["end_s"]["p95"] >= one["first_audio_s"]["p95"]
        assert one["audio_s_per_s"] > 0
    assert len(check_ok(await cli(*wanted, "--json")).stdout.splitlines()) == 1


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a player that writes its input to a file; return the file's path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    heard = tmp_path / "heard"
    script = folder / "ffplay"
    script.write_text(f"#!/bin/sh\nexec cat > {heard}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return heard


async def test_it_is_played(cli: Cli, player: Path, tmp_path: Path):
    check_ok(await cli("generate", "a", "-d", 1, "--play"))
    assert read_seconds(read_files(tmp_path)["heard"]) == 1
    check_ok(await cli("generate", "a", "-d", 1, "--play", "-o", "a.mp3"))
    found = read_files(tmp_path)
    assert found["heard"] == found["a.mp3"]


@pytest.mark.parametrize(
    ("players", "more", "reason"),
    [
        ({}, (), "no player was found"),
        ({"aplay": 1}, ("-f", "mp3"), "aplay plays wav"),
        ({"ffplay": 1}, ("-f", "pcm"), "a pcm file has no sample rate"),
    ],
)
async def test_it_cannot_be_played(
    cli: Cli,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    players: dict[str, int],
    more: tuple[str, ...],
    reason: str,
):
    monkeypatch.setattr(player_module.shutil, "which", players.get)
    result = await cli("generate", "a", "--play", *more, COLUMNS="300")
    assert (result.exit_code, reason in result.stderr) == (2, True)
    assert not served.music.seen
