"""Defines the commands `encode`, `decode` and `analyze`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from audiocraft_serve.answers import Codes, from_json, to_json
from audiocraft_serve.cli import files
from audiocraft_serve.cli.context import CommandContext, register_command, usage_error
from audiocraft_serve.cli.generate_commands import Source
from audiocraft_serve.errors import UnexpectedAnswer

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Name of a model that `models` lists.")
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""

    @register_command(app, "encode")
    def encode_file(
        context: CommandContext,
        file: Source,
        output: Annotated[
            Path, typer.Option("--output", "-o", help="A .safetensors or .json file; - is stdout.")
        ] = files.STDIO,
        codebooks: Annotated[
            int | None, typer.Option(help="Number of codebooks to keep; by default all.")
        ] = None,
        bandwidth: Annotated[
            float | None, typer.Option(help="Number of codebooks to keep, as kbit/s.")
        ] = None,
        model: Model = None,
    ) -> None:
        """Encode audio to EnCodec codes: JSON, or a safetensors file if the name ends so."""
        data = files.read_file(file)
        with context.open_client() as client:
            if output.suffix == ".safetensors":
                encoded = client.encode_file(
                    data, codebooks=codebooks, bandwidth=bandwidth, model=model
                )
            else:
                codes = client.encode(data, codebooks=codebooks, bandwidth=bandwidth, model=model)
                encoded = json.dumps(to_json(codes)).encode() + b"\n"
        _write_output(context, output, encoded)

    @register_command(app, "decode")
    def decode_file(
        context: CommandContext,
        file: Source,
        output: Annotated[Path, typer.Option("--output", "-o", help="A .wav file; - is stdout.")],
        model: Model = None,
    ) -> None:
        """Decode codes that `encode` has written to a WAV file."""
        if files.detect_format(output, None) != "wav":
            raise usage_error(f"{output}: codes are decoded to WAV; end the file's name in .wav")
        data = files.read_file(file)
        codes = _parse_codes(data) if data.lstrip()[:1] == b"{" else data
        with context.open_client() as client:
            _write_output(context, output, client.decode(codes, model=model))

    @register_command(app, "analyze")
    def analyze_file(
        context: CommandContext,
        file: Source,
        threshold: Annotated[
            float | None,
            typer.Option(help="Score from 0 to 1 above which audio counts as real; default 0.5."),
        ] = None,
        model: Model = None,
    ) -> None:
        """Score how real a file sounds, with the discriminators."""
        with context.open_client() as client:
            analysis = client.analyze(files.read_file(file), threshold=threshold, model=model)
        probability = analysis.probability
        table = Table("", "", box=None, show_header=False)
        shown = "not calibrated" if probability is None else f"{probability:.3f}"
        table.add_row("probability that it is real", shown)
        is_real = "yes" if analysis.is_real else "no"
        table.add_row(f"mean score above {analysis.threshold:g}", is_real)
        for name in ("mpd", "msd", "msstftd"):
            table.add_row(f"{name} score", f"{getattr(analysis, f'{name}_score'):.3f}")
        context.print_answer(to_json(analysis), table)


def _parse_codes(data: bytes) -> Codes:
    try:
        return from_json(Codes, json.loads(data))
    except (ValueError, UnexpectedAnswer) as error:
        raise usage_error("the file contains no codes; give a file that `encode` wrote") from error


def _write_output(context: CommandContext, output: Path, data: bytes) -> None:
    files.write_file(output, data)
    if output != files.STDIO:
        context.print_message(f"{output}: {len(data)} bytes")
        context.print_answer({"path": str(output), "bytes": len(data)})
