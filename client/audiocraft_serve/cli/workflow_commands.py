"""Defines the commands `song`, `podcast`, `ambience` and `style`."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from audiocraft_serve.cli import files, options
from audiocraft_serve.cli.context import CommandContext, Options, register_command, usage_error
from audiocraft_serve.cli.generate_commands import Source
from audiocraft_serve.cli.progress_bar import ProgressBar
from audiocraft_serve.client import Client
from audiocraft_serve.parameters import SectionParameters
from audiocraft_serve.workflows import Production, Track

Output = Annotated[Path, typer.Option("--output", "-o", help="File for the mix; - is stdout.")]
Stems = Annotated[
    Path | None, typer.Option(file_okay=False, help="Folder for the stems of the mix.")
]
Loudness = Annotated[float | None, typer.Option(help="Loudness of the mix in LUFS.")]
EffectsModel = Annotated[str | None, typer.Option(help="Name of the model for sound effects.")]
Seconds = Annotated[float | None, typer.Option(help="Length in seconds.")]
ENVIRONMENTS = ("forest", "ocean", "city", "dungeon")
OPTION_GROUPS = (options.sampling_options, options.file_options)
Request = Callable[[Client, ProgressBar], Production]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""

    @register_command(app, "song", *OPTION_GROUPS)
    def make_song(
        context: CommandContext,
        options: Options,
        output: Output,
        sections: Annotated[
            list[str] | None, typer.Argument(metavar="[NAME:BARS:PROMPT]...")
        ] = None,
        score: Annotated[
            Path | None,
            typer.Option(help="JSON file with the song, as the API accepts it; - is stdin."),
        ] = None,
        effects: Annotated[
            list[str] | None,
            typer.Option(
                "--effect", metavar="AT:PROMPT", help="Sound effect and its start in seconds."
            ),
        ] = None,
        key: Annotated[str | None, typer.Option(help="Musical key, for example 'A minor'.")] = None,
        tempo: Annotated[float | None, typer.Option(help="Tempo in beats per minute.")] = None,
        beats_per_bar: Annotated[int | None, typer.Option(help="Beats per bar.")] = None,
        crossfade_beats: Annotated[
            float | None, typer.Option(help="Crossfade between sections, in beats.")
        ] = None,
        effects_model: EffectsModel = None,
        bandwidth: Annotated[
            float | None,
            typer.Option(help="Write a second mix, coded by EnCodec at this rate in kbit/s."),
        ] = None,
        loudness: Loudness = None,
        stems: Stems = None,
    ) -> None:
        """Generate a song from sections, for example intro:2:"calm piano".

        Each section continues the one before.
        """
        if (score is None) == (not sections):
            raise usage_error("give either sections, as NAME:BARS:PROMPT, or --score FILE")
        body = (
            _parse_score(files.read_file(score))
            if score
            else {"sections": _parse_sections(sections or [])}
        )
        body |= options | _drop_none(
            key=key, tempo=tempo, beats_per_bar=beats_per_bar, crossfade_beats=crossfade_beats,
            effects_model=effects_model, loudness=loudness,
            distribution=bandwidth and {"bandwidth": bandwidth},
            effects=[_parse_effect(one) for one in effects] if effects else None,
        )  # fmt: skip
        section_list: list[SectionParameters] = body.pop("sections", [])
        _run_workflow(
            context, "song", body, output, stems,
            lambda client, bar: client.song(section_list, on_progress=bar.show_workflow, **body),
        )  # fmt: skip

    @register_command(app, "podcast", *OPTION_GROUPS)
    def make_podcast(
        context: CommandContext,
        theme: Annotated[
            str, typer.Argument(help="Topic of the podcast, or the style of its music.")
        ],
        options: Options,
        output: Output,
        voice: Annotated[
            Path | None,
            typer.Option(help="Audio file with speech, which the music is mixed under."),
        ] = None,
        intro: Seconds = None,
        outro: Seconds = None,
        transitions: Annotated[
            int | None, typer.Option(help="Number of transition sounds, 0 to 5.")
        ] = None,
        bed_gain_db: Annotated[
            float | None, typer.Option(help="Gain in dB of the music under the voice.")
        ] = None,
        effects_model: EffectsModel = None,
        loudness: Loudness = None,
        stems: Stems = None,
    ) -> None:
        """Generate a podcast's intro, transitions and outro, and mix music under its voice."""
        body = options | _drop_none(
            intro=intro, outro=outro, transitions=transitions, bed_gain_db=bed_gain_db,
            effects_model=effects_model, loudness=loudness,
            voice=files.read_file(voice) if voice else None,
        )  # fmt: skip
        _run_workflow(
            context, "podcast", body, output, stems,
            lambda client, bar: client.podcast(theme, on_progress=bar.show_workflow, **body),
        )  # fmt: skip

    @register_command(app, "ambience", *OPTION_GROUPS)
    def make_ambience(
        context: CommandContext,
        place: Annotated[
            str, typer.Argument(help=f"{', '.join(ENVIRONMENTS)}, or a prompt; - is stdin.")
        ],
        options: Options,
        output: Output,
        duration: Annotated[
            float | None, typer.Option("--duration", "-d", help="Length in seconds, at least 1.")
        ] = None,
        loudness: Loudness = None,
    ) -> None:
        """Generate an ambience, which loops seamlessly."""
        kind = "environment" if place in ENVIRONMENTS else "prompt"
        given = _drop_none(duration=duration, loudness=loudness)
        body = options | given | {kind: files.read_prompt(place)}
        _run_workflow(
            context, "ambience", body, output, None,
            lambda client, bar: client.ambience(on_progress=bar.show_workflow, **body),
        )  # fmt: skip

    @register_command(app, "style", *OPTION_GROUPS)
    def transfer_style(
        context: CommandContext,
        file: Source,
        style: Annotated[str, typer.Argument(help="Style of the new music.")],
        options: Options,
        output: Output,
        duration: Annotated[
            float | None,
            typer.Option(
                "--duration", "-d", help="Length in seconds; by default that of the file."
            ),
        ] = None,
        loudness: Loudness = None,
    ) -> None:
        """Generate music with a file's melody in another style; needs a melody model."""
        content = files.read_file(file)
        body = options | _drop_none(duration=duration, loudness=loudness)
        _run_workflow(
            context, "style", body, output, None,
            lambda client, bar: client.style_transfer(
                content, style, on_progress=bar.show_workflow, **body
            ),
        )  # fmt: skip


def _drop_none(**fields: Any) -> Options:
    return {name: value for name, value in fields.items() if value is not None}


def _parse_score(data: bytes) -> Options:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise usage_error(f"--score: the file is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise usage_error('--score: give a JSON object, such as {"sections": [...], "tempo": 100}')
    return body


def _parse_sections(arguments: list[str]) -> list[SectionParameters]:
    found = list[SectionParameters]()
    for one in arguments:
        name, _, rest = one.partition(":")
        bars, _, prompt = rest.partition(":")
        if not (name.strip() and bars.strip().isdecimal() and prompt.strip()):
            raise usage_error(f"{one!r}: write NAME:BARS:PROMPT, such as 'intro:2:calm piano'")
        found.append({"name": name.strip(), "prompt": prompt.strip(), "bars": int(bars)})
    return found


def _parse_effect(argument: str) -> dict[str, Any]:
    at, _, prompt = argument.partition(":")
    try:
        return {"at": float(at), "prompt": prompt.strip()}
    except ValueError as error:
        raise usage_error(f"{argument!r}: write AT:PROMPT, such as '3.5:thunder'") from error


def _run_workflow(
    context: CommandContext, label: str, body: Options, output: Path, stems: Path | None,
    request: Request,
) -> None:  # fmt: skip
    """Run a workflow, and write its mix and, into the folder `stems`, its stems."""
    if output == files.STDIO and context.as_json:
        raise usage_error("-o - writes the mix to stdout; use a file for --json")
    body["format"] = files.detect_format(output, body.get("format"))
    with context.open_client() as client, ProgressBar(label) as bar:
        production = request(client, bar)
    tracks = [_write_track(production.mix, output)]
    if production.distribution and output != files.STDIO:
        path = output.with_name(f"{output.stem}-distribution{output.suffix}")
        tracks.append(_write_track(production.distribution, path))
    if stems:
        stems.mkdir(parents=True, exist_ok=True)
        for number, stem in enumerate(production.stems, start=1):
            name = re.sub(r"\W+", "-", stem.name).strip("-")
            path = stems / f"{number:02}-{name}.{production.format}"
            tracks.append(_write_track(stem, path))
    _print_production(context, production, tracks, output)


def _write_track(track: Track, path: Path) -> dict[str, Any]:
    files.write_file(path, track.audio)
    return {
        "path": str(path), "name": track.name, "start": track.start, "duration": track.duration,
    }  # fmt: skip


def _print_production(
    context: CommandContext, production: Production, tracks: list[dict[str, Any]], output: Path
) -> None:
    loudness = production.loudness
    level = "" if loudness is None else f"{loudness:.1f} LUFS, "
    for one in tracks:
        context.print_message(f"{one['path']}: {one['duration']:.1f} s")
    context.print_message(f"{level}model {production.model}, seed {production.seed}")
    if output != files.STDIO:
        names = ("model", "seed", "format", "duration", "loudness", "request_id")
        timing = [vars(one) for one in production.timing]
        facts = {name: getattr(production, name) for name in names}
        context.print_answer(facts | {"timing": timing, "tracks": tracks})
