"""`song`, `podcast`, `ambience` and `style`."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from audiocraft_serve.cli import files, options
from audiocraft_serve.cli.command import Options, Told, command, misused
from audiocraft_serve.cli.generate import Source
from audiocraft_serve.cli.progress import Bar
from audiocraft_serve.client import Client
from audiocraft_serve.parameters import SectionParameters
from audiocraft_serve.workflows import Production, Track

Output = Annotated[Path, typer.Option("--output", "-o", help="The mix; -: stdout.")]
Stems = Annotated[
    Path | None, typer.Option(file_okay=False, help="A folder for what the mix is made of.")
]
Loudness = Annotated[float | None, typer.Option(help="Of the mix, in LUFS.")]
EffectsModel = Annotated[str | None, typer.Option(help="A sound model's name.")]
Seconds = Annotated[float | None, typer.Option(help="Seconds.")]
ENVIRONMENTS = ("forest", "ocean", "city", "dungeon")
GROUPS = (options.sampling, options.output)
Ask = Callable[[Client, Bar], Production]


def add(app: typer.Typer) -> None:
    """Add these commands."""

    @command(app, "song", *GROUPS)
    def song(
        told: Told,
        options: Options,
        output: Output,
        sections: Annotated[
            list[str] | None, typer.Argument(metavar="[NAME:BARS:PROMPT]...")
        ] = None,
        score: Annotated[
            Path | None, typer.Option(help="A JSON file instead, as the API takes songs; -: stdin.")
        ] = None,
        effects: Annotated[
            list[str] | None,
            typer.Option("--effect", metavar="AT:PROMPT", help="A sound, at so many seconds."),
        ] = None,
        key: Annotated[str | None, typer.Option(help="Such as 'A minor'.")] = None,
        tempo: Annotated[float | None, typer.Option(help="Beats a minute.")] = None,
        beats_per_bar: Annotated[int | None, typer.Option()] = None,
        crossfade_beats: Annotated[float | None, typer.Option()] = None,
        effects_model: EffectsModel = None,
        bandwidth: Annotated[
            float | None, typer.Option(help="A second mix, through EnCodec, in kbit/s.")
        ] = None,
        loudness: Loudness = None,
        stems: Stems = None,
    ) -> None:
        """Make a song of sections that go on from each other: intro:2:"calm piano" and so on."""
        if (score is None) == (not sections):
            raise misused("say the sections, as NAME:BARS:PROMPT, or --score FILE")
        body = _score(files.read(score)) if score else {"sections": _sections(sections or [])}
        body |= options | _given(
            key=key, tempo=tempo, beats_per_bar=beats_per_bar, crossfade_beats=crossfade_beats,
            effects_model=effects_model, loudness=loudness,
            distribution=bandwidth and {"bandwidth": bandwidth},
            effects=[_effect(one) for one in effects] if effects else None,
        )  # fmt: skip
        wanted: list[SectionParameters] = body.pop("sections", [])
        _make(
            told, "song", body, output, stems,
            lambda client, bar: client.song(wanted, on_progress=bar.take_part, **body),
        )  # fmt: skip

    @command(app, "podcast", *GROUPS)
    def podcast(
        told: Told,
        theme: Annotated[str, typer.Argument(help="What it is about, or how it is to sound.")],
        options: Options,
        output: Output,
        voice: Annotated[
            Path | None, typer.Option(help="A file with speech, to lay music under.")
        ] = None,
        intro: Seconds = None,
        outro: Seconds = None,
        transitions: Annotated[int | None, typer.Option(help="How many sounds, 0 to 5.")] = None,
        bed_gain_db: Annotated[float | None, typer.Option(help="Of music under a voice.")] = None,
        effects_model: EffectsModel = None,
        loudness: Loudness = None,
        stems: Stems = None,
    ) -> None:
        """Make a podcast's intro, transitions and outro, and music under its voice."""
        body = options | _given(
            intro=intro, outro=outro, transitions=transitions, bed_gain_db=bed_gain_db,
            effects_model=effects_model, loudness=loudness,
            voice=files.read(voice) if voice else None,
        )  # fmt: skip
        _make(
            told, "podcast", body, output, stems,
            lambda client, bar: client.podcast(theme, on_progress=bar.take_part, **body),
        )  # fmt: skip

    @command(app, "ambience", *GROUPS)
    def ambience(
        told: Told,
        place: Annotated[
            str, typer.Argument(help=f"{', '.join(ENVIRONMENTS)}; or what to hear; -: stdin.")
        ],
        options: Options,
        output: Output,
        duration: Annotated[
            float | None, typer.Option("--duration", "-d", help="Seconds, from 1.")
        ] = None,
        loudness: Loudness = None,
    ) -> None:
        """Make an ambience that goes round without a seam."""
        kind = "environment" if place in ENVIRONMENTS else "prompt"
        given = _given(duration=duration, loudness=loudness)
        body = options | given | {kind: files.text_of(place)}
        _make(
            told, "ambience", body, output, None,
            lambda client, bar: client.ambience(on_progress=bar.take_part, **body),
        )  # fmt: skip

    @command(app, "style", *GROUPS)
    def style(
        told: Told,
        file: Source,
        style: Annotated[str, typer.Argument(help="What to hear.")],
        options: Options,
        output: Output,
        duration: Annotated[
            float | None, typer.Option("--duration", "-d", help="Seconds; by default the file's.")
        ] = None,
        loudness: Loudness = None,
    ) -> None:
        """Make a file's melody heard in another style, by a model that follows melodies."""
        content = files.read(file)
        body = options | _given(duration=duration, loudness=loudness)
        _make(
            told, "style", body, output, None,
            lambda client, bar: client.style_transfer(
                content, style, on_progress=bar.take_part, **body
            ),
        )  # fmt: skip


def _given(**fields: Any) -> Options:
    return {name: value for name, value in fields.items() if value is not None}


def _score(data: bytes) -> Options:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise misused(f"--score: this is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise misused('--score: it needs an object, such as {"sections": [...], "tempo": 100}')
    return body


def _sections(words: list[str]) -> list[SectionParameters]:
    found = list[SectionParameters]()
    for one in words:
        name, _, rest = one.partition(":")
        bars, _, prompt = rest.partition(":")
        if not (name.strip() and bars.strip().isdecimal() and prompt.strip()):
            raise misused(f"{one!r}: write NAME:BARS:PROMPT, such as 'intro:2:calm piano'")
        found.append({"name": name.strip(), "prompt": prompt.strip(), "bars": int(bars)})
    return found


def _effect(words: str) -> dict[str, Any]:
    at, _, prompt = words.partition(":")
    try:
        return {"at": float(at), "prompt": prompt.strip()}
    except ValueError as error:
        raise misused(f"{words!r}: write AT:PROMPT, such as '3.5:thunder'") from error


def _make(
    told: Told, label: str, body: Options, output: Path, stems: Path | None, ask: Ask
) -> None:
    """Make it, and write the mix and what it is made of."""
    if output == files.STDIO and told.as_json:
        raise misused("-o -: stdout is for the mix, without --json")
    body["format"] = files.format_of(output, body.get("format"))
    with told.client() as client, Bar(label) as bar:
        made = ask(client, bar)
    written = [_written(made.mix, output)]
    if made.distribution and output != files.STDIO:
        beside = output.with_name(f"{output.stem}-distribution{output.suffix}")
        written.append(_written(made.distribution, beside))
    if stems:
        stems.mkdir(parents=True, exist_ok=True)
        for number, stem in enumerate(made.stems, start=1):
            name = re.sub(r"\W+", "-", stem.name).strip("-")
            written.append(_written(stem, stems / f"{number:02}-{name}.{made.format}"))
    _tell(told, made, written, output)


def _written(track: Track, path: Path) -> dict[str, Any]:
    files.write(path, track.audio)
    return {
        "path": str(path), "name": track.name, "start": track.start, "duration": track.duration,
    }  # fmt: skip


def _tell(told: Told, made: Production, written: list[dict[str, Any]], output: Path) -> None:
    level = "" if made.loudness is None else f"{made.loudness:.1f} LUFS, "
    for one in written:
        told.say(f"{one['path']}: {one['duration']:.1f} s")
    told.say(f"{level}model {made.model}, seed {made.seed}")
    if output != files.STDIO:
        facts = ("model", "seed", "format", "duration", "loudness", "request_id")
        timing = [vars(one) for one in made.timing]
        named = {name: getattr(made, name) for name in facts}
        told.answer(named | {"timing": timing, "tracks": written})
