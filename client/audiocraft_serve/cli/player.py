"""Plays audio with ffplay or aplay, which read it from a pipe while it is received."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from audiocraft_serve.cli.context import usage_error

PLAYERS = {
    "ffplay": ["-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"],
    "aplay": ["--quiet", "-"],
}
NO_PLAYER = "--play: no player was found; install ffmpeg, which includes ffplay"


def find_player(format_name: str) -> list[str]:
    """Return the command that plays an output format. Raises BadParameter if there is none."""
    if format_name == "pcm":
        raise usage_error("--play: a pcm file has no sample rate; choose another --format")
    found = [name for name in PLAYERS if shutil.which(name)]
    if found == ["aplay"] and format_name != "wav":
        raise usage_error(
            f"--play: aplay plays wav, not {format_name}; install ffmpeg, or choose wav"
        )
    if not found:
        raise usage_error(NO_PLAYER)
    return [found[0], *PLAYERS[found[0]]]


@contextmanager
def open_player(format_name: str) -> Iterator[IO[bytes]]:
    """Start a player, yield its input, and wait until it has played everything."""
    with subprocess.Popen(find_player(format_name), stdin=subprocess.PIPE) as player:
        assert player.stdin
        try:
            yield player.stdin
            player.stdin.close()
            player.wait()
        finally:
            player.terminate()
            with suppress(BrokenPipeError):  # the user closed the player before the end
                player.stdin.close()
