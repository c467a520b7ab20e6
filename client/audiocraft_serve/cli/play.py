"""Hearing it: a player reads the file while it comes."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from audiocraft_serve.cli.command import misused

PLAYERS = {
    "ffplay": ["-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"],
    "aplay": ["--quiet", "-"],
}
NONE = "no player is here: install ffmpeg, which has ffplay, or leave out --play"


def player_for(made_as: str) -> list[str]:
    """Return the command that plays a format. Raises BadParameter where there is none."""
    if made_as == "pcm":
        raise misused("--play: pcm does not say its rate; choose another --format")
    found = [name for name in PLAYERS if shutil.which(name)]
    if found == ["aplay"] and made_as != "wav":
        raise misused(f"--play: aplay plays wav, not {made_as}; install ffmpeg, or choose wav")
    if not found:
        raise misused(NONE)
    return [found[0], *PLAYERS[found[0]]]


@contextmanager
def playing(made_as: str) -> Iterator[IO[bytes]]:
    """Give what the player reads, and wait until it has been heard."""
    with subprocess.Popen(player_for(made_as), stdin=subprocess.PIPE) as player:
        assert player.stdin
        try:
            yield player.stdin
            player.stdin.close()
            player.wait()
        finally:
            player.terminate()
            with suppress(BrokenPipeError):  # it was closed before the end
                player.stdin.close()
