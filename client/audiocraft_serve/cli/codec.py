"""`encode`, `decode` and `analyze`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from audiocraft_serve.answers import Codes, from_json, to_json
from audiocraft_serve.cli import files
from audiocraft_serve.cli.command import Told, command, misused
from audiocraft_serve.cli.generate import Source
from audiocraft_serve.errors import UnexpectedAnswer

Model = Annotated[str | None, typer.Option("--model", "-m", help="A name that `models` tells.")]


def add(app: typer.Typer) -> None:
    """Add these commands."""

    @command(app, "encode")
    def encode(
        told: Told,
        file: Source,
        output: Annotated[
            Path, typer.Option("--output", "-o", help="A .safetensors or .json file; -: stdout.")
        ] = files.STDIO,
        codebooks: Annotated[int | None, typer.Option(help="Keep the first so many.")] = None,
        bandwidth: Annotated[float | None, typer.Option(help="The same, in kbit/s.")] = None,
        model: Model = None,
    ) -> None:
        """Turn audio into EnCodec's codes: JSON, or a safetensors file by its ending."""
        data = files.read(file)
        with told.client() as client:
            if output.suffix == ".safetensors":
                made = client.encode_file(
                    data, codebooks=codebooks, bandwidth=bandwidth, model=model
                )
            else:
                codes = client.encode(data, codebooks=codebooks, bandwidth=bandwidth, model=model)
                made = json.dumps(to_json(codes)).encode() + b"\n"
        _written(told, output, made)

    @command(app, "decode")
    def decode(
        told: Told,
        file: Source,
        output: Annotated[Path, typer.Option("--output", "-o", help="A .wav file; -: stdout.")],
        model: Model = None,
    ) -> None:
        """Turn codes, as `encode` has written them, into a WAV file."""
        if files.format_of(output, None) != "wav":
            raise misused(f"{output}: codes become a WAV file; end its name in .wav")
        data = files.read(file)
        codes = _codes(data) if data.lstrip()[:1] == b"{" else data
        with told.client() as client:
            _written(told, output, client.decode(codes, model=model))

    @command(app, "analyze")
    def analyze(
        told: Told,
        file: Source,
        threshold: Annotated[
            float | None, typer.Option(help="0 to 1, above which it is real; by default 0.5.")
        ] = None,
        model: Model = None,
    ) -> None:
        """Say how real a file sounds to the discriminators."""
        with told.client() as client:
            found = client.analyze(files.read(file), threshold=threshold, model=model)
        table = Table("", "", box=None, show_header=False)
        probability = "not calibrated" if found.probability is None else f"{found.probability:.3f}"
        table.add_row("probability that it is real", probability)
        table.add_row(f"mean score above {found.threshold:g}", "yes" if found.is_real else "no")
        for name in ("mpd", "msd", "msstftd"):
            table.add_row(f"{name} score", f"{getattr(found, f'{name}_score'):.3f}")
        told.answer(to_json(found), table)


def _codes(data: bytes) -> Codes:
    try:
        return from_json(Codes, json.loads(data))
    except (ValueError, UnexpectedAnswer) as error:
        raise misused("these are no codes: give what `encode` has written") from error


def _written(told: Told, output: Path, data: bytes) -> None:
    files.write(output, data)
    if output != files.STDIO:
        told.say(f"{output}: {len(data)} bytes")
        told.answer({"path": str(output), "bytes": len(data)})
