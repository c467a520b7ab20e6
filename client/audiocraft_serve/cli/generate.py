"""`generate`, `continue` and `melody`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from audiocraft_serve.answers import Generation
from audiocraft_serve.cli import files
from audiocraft_serve.cli.command import Options, Told, command, misused
from audiocraft_serve.cli.options import CLIP, part
from audiocraft_serve.cli.play import player_for, playing
from audiocraft_serve.cli.progress import Bar

Prompt = Annotated[str, typer.Argument(help="What to hear; - reads it from stdin.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="A file; several clips are numbered. -: stdout."),
]
Stream = Annotated[
    Path | None, typer.Option(help="A file, or - for stdout, that is written while it is made.")
]
Play = Annotated[bool, typer.Option("--play", help="Hear it, by ffplay or aplay.")]
Source = Annotated[Path, typer.Argument(help="A file; -: stdin.")]


def add(app: typer.Typer) -> None:
    """Add these commands."""

    @command(app, "generate", *CLIP)
    def generate(
        told: Told,
        prompts: Annotated[
            list[str], typer.Argument(metavar="PROMPT...", help="What to hear; -: stdin.")
        ],
        options: Options,
        output: Output = None,
        stream: Stream = None,
        play: Play = False,
    ) -> None:
        """Make music or a sound from text."""
        make(told, [files.text_of(prompt) for prompt in prompts], options, output, stream, play)

    @command(app, "continue", part, *CLIP)
    def continue_from(
        told: Told,
        file: Source,
        prompt: Prompt,
        options: Options,
        output: Output = None,
        stream: Stream = None,
        play: Play = False,
    ) -> None:
        """Go on from a file: audio, or codes that `encode` has written.

        --duration counts what the file has.
        """
        options["continue_from"] = _upload(file, prompt)
        make(told, [files.text_of(prompt)], options, output, stream, play)

    @command(app, "melody", *CLIP)
    def melody(
        told: Told,
        file: Source,
        prompt: Prompt,
        options: Options,
        output: Output = None,
        stream: Stream = None,
        play: Play = False,
    ) -> None:
        """Follow a file's melody, by a model that can."""
        options["melody"] = _upload(file, prompt)
        make(told, [files.text_of(prompt)], options, output, stream, play)


def _upload(file: Path, prompt: str) -> bytes:
    if file == files.STDIO and prompt == "-":
        raise misused("stdin is either the file or the prompt")
    return files.read(file)


def make(
    told: Told,
    prompts: list[str],
    options: Options,
    output: Path | None,
    stream: Path | None,
    play: bool,
) -> None:
    """Make clips to where they are wanted."""
    if (output is None) == (stream is None) and not (play and output is None):
        raise misused("say where to, by one of: -o FILE, --stream FILE; - is stdout. Or --play")
    options["format"] = files.format_of(output or stream or files.STDIO, options.get("format"))
    if play:
        player_for(options["format"])
    if output is None:
        _streamed(told, prompts, options, stream, play)
    else:
        _whole(told, prompts, options, output, play)


def _streamed(
    told: Told, prompts: list[str], options: Options, stream: Path | None, play: bool
) -> None:
    if len(prompts) * options.pop("n", 1) != 1:
        raise misused("a stream is of one clip; write several by -o")
    with told.client() as client, client.stream(prompts[0], **options) as made:
        told.say(f"model {made.model}, seed {made.seed}")
        with _sinks(stream, made.format if play else None) as sinks:
            for piece in made.parts:
                for sink in sinks:
                    sink.write(piece)
                    sink.flush()
    if stream != files.STDIO:
        path = str(stream) if stream else None
        told.answer({"model": made.model, "seed": made.seed, "format": made.format, "path": path})


@contextmanager
def _sinks(path: Path | None, played_as: str | None) -> Iterator[list[files.Sink]]:
    match path, played_as:
        case None, str(format_name):
            with playing(format_name) as player:
                yield [player]
        case Path(), None:
            with files.writing(path) as file:
                yield [file]
        case Path(), str(format_name):
            with files.writing(path) as file, playing(format_name) as player:
                yield [file, player]


def _whole(told: Told, prompts: list[str], options: Options, output: Path, play: bool) -> None:
    count = len(prompts) * options.get("n", 1)
    if output == files.STDIO and (count > 1 or told.as_json):
        raise misused("-o -: stdout is for one clip, without --json")
    with told.client() as client, Bar(prompts[0][:30], count) as bar:
        made = client.generate(prompts, on_progress=bar.take, **options)
    save(told, made, output)
    if play:
        for clip in made.clips:
            with playing(made.format) as player:
                player.write(clip.audio)


def save(told: Told, made: Generation, output: Path) -> None:
    """Write clips, and say what they are."""
    paths = files.numbered(output, len(made.clips))
    clips = list[dict[str, Any]]()
    for clip, path in zip(made.clips, paths, strict=True):
        files.write(path, clip.audio)
        seconds = "" if clip.duration is None else f"{clip.duration:g} s, "
        told.say(f"{path}: {seconds}model {made.model}, seed {made.seed}")
        facts = ("prompt", "variation", "duration", "sample_rate", "channels")
        clips.append({"path": str(path)} | {name: getattr(clip, name) for name in facts})
    if output != files.STDIO:
        named = {"model": made.model, "seed": made.seed, "format": made.format}
        told.answer(named | {"request_id": made.request_id, "clips": clips})
