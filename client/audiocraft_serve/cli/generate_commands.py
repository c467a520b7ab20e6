"""Defines the commands `generate`, `continue` and `melody`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from audiocraft_serve.answers import Generation
from audiocraft_serve.cli import files
from audiocraft_serve.cli.context import CommandContext, Options, register_command, usage_error
from audiocraft_serve.cli.options import CLIP_OPTIONS, continuation_options
from audiocraft_serve.cli.player import find_player, open_player
from audiocraft_serve.cli.progress_bar import ProgressBar

Prompt = Annotated[str, typer.Argument(help="Text to generate from; - reads it from stdin.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Output file; several clips are numbered; - is stdout."),
]
Stream = Annotated[
    Path | None,
    typer.Option(help="File, or - for stdout, that is written while the clip is generated."),
]
Play = Annotated[bool, typer.Option("--play", help="Play the clip with ffplay or aplay.")]
Source = Annotated[Path, typer.Argument(help="Input file; - is stdin.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""

    @register_command(app, "generate", *CLIP_OPTIONS)
    def generate_clips(
        context: CommandContext,
        prompts: Annotated[
            list[str],
            typer.Argument(metavar="PROMPT...", help="Texts to generate from; - is stdin."),
        ],
        options: Options,
        output: Output = None,
        stream: Stream = None,
        play: Play = False,
    ) -> None:
        """Generate music or sounds from text."""
        texts = [files.read_prompt(prompt) for prompt in prompts]
        run_generation(context, texts, options, output, stream, play)

    @register_command(app, "continue", continuation_options, *CLIP_OPTIONS)
    def continue_file(
        context: CommandContext,
        file: Source,
        prompt: Prompt,
        options: Options,
        output: Output = None,
        stream: Stream = None,
        play: Play = False,
    ) -> None:
        """Continue an audio file, or a file of codes that `encode` has written.

        --duration includes the length of the file.
        """
        options["continue_from"] = _read_upload(file, prompt)
        run_generation(context, [files.read_prompt(prompt)], options, output, stream, play)

    @register_command(app, "melody", *CLIP_OPTIONS)
    def follow_melody(
        context: CommandContext,
        file: Source,
        prompt: Prompt,
        options: Options,
        output: Output = None,
        stream: Stream = None,
        play: Play = False,
    ) -> None:
        """Generate music with the melody of a file; needs a model with melody conditioning."""
        options["melody"] = _read_upload(file, prompt)
        run_generation(context, [files.read_prompt(prompt)], options, output, stream, play)


def _read_upload(file: Path, prompt: str) -> bytes:
    if file == files.STDIO and prompt == "-":
        raise usage_error("stdin can be the file or the prompt, not both")
    return files.read_file(file)


def run_generation(
    context: CommandContext,
    prompts: list[str],
    options: Options,
    output: Path | None,
    stream: Path | None,
    play: bool,
) -> None:
    """Generate clips, and write or play them as the options say."""
    if (output is None) == (stream is None) and not (play and output is None):
        raise usage_error("give one output: -o FILE or --stream FILE (- is stdout), or --play")
    options["format"] = files.detect_format(output or stream or files.STDIO, options.get("format"))
    if play:
        find_player(options["format"])
    if output is None:
        _stream_clip(context, prompts, options, stream, play)
    else:
        _write_clips(context, prompts, options, output, play)


def _stream_clip(
    context: CommandContext, prompts: list[str], options: Options, stream: Path | None, play: bool
) -> None:
    if len(prompts) * options.pop("n", 1) != 1:
        raise usage_error("a stream has one clip; write several clips with -o")
    with context.open_client() as client, client.stream(prompts[0], **options) as clip:
        context.print_message(f"model {clip.model}, seed {clip.seed}")
        with _open_outputs(stream, clip.format if play else None) as outputs:
            for part in clip.parts:
                for output in outputs:
                    output.write(part)
                    output.flush()
    if stream != files.STDIO:
        path = str(stream) if stream else None
        facts = {"model": clip.model, "seed": clip.seed, "format": clip.format, "path": path}
        context.print_answer(facts)


@contextmanager
def _open_outputs(path: Path | None, play_format: str | None) -> Iterator[list[files.ByteWriter]]:
    """Open the file, if there is a path, and the player, if there is a format to play."""
    match path, play_format:
        case None, str(format_name):
            with open_player(format_name) as player:
                yield [player]
        case Path(), None:
            with files.open_output(path) as file:
                yield [file]
        case Path(), str(format_name):
            with files.open_output(path) as file, open_player(format_name) as player:
                yield [file, player]


def _write_clips(
    context: CommandContext, prompts: list[str], options: Options, output: Path, play: bool
) -> None:
    count = len(prompts) * options.get("n", 1)
    if output == files.STDIO and (count > 1 or context.as_json):
        raise usage_error("-o - writes one clip to stdout; use a file for several, or for --json")
    with context.open_client() as client, ProgressBar(prompts[0][:30], count) as bar:
        generation = client.generate(prompts, on_progress=bar.show_clip, **options)
    save_clips(context, generation, output)
    if play:
        for clip in generation.clips:
            with open_player(generation.format) as player:
                player.write(clip.audio)


def save_clips(context: CommandContext, generation: Generation, output: Path) -> None:
    """Write the clips of a generation to files, and print their properties."""
    paths = files.number_paths(output, len(generation.clips))
    clips = list[dict[str, Any]]()
    made_by = f"model {generation.model}, seed {generation.seed}"
    for clip, path in zip(generation.clips, paths, strict=True):
        files.write_file(path, clip.audio)
        seconds = "" if clip.duration is None else f"{clip.duration:g} s, "
        context.print_message(f"{path}: {seconds}{made_by}")
        names = ("prompt", "variation", "duration", "sample_rate", "channels")
        clips.append({"path": str(path)} | {name: getattr(clip, name) for name in names})
    if output != files.STDIO:
        shared = ("model", "seed", "format", "request_id")
        facts = {name: getattr(generation, name) for name in shared}
        context.print_answer(facts | {"clips": clips})
