"""The options of what is generated, by group: their names are the API's."""

from typing import Annotated, Any, Literal

import typer

SAMPLING, FILE = "How it is made", "The file"


def _sampling(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=SAMPLING)


def _file(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=FILE)


def sampling(
    model: Annotated[str | None, _sampling("A name that `models` tells.", "--model", "-m")] = None,
    seed: Annotated[int | None, _sampling("The same seed makes the same clip.")] = None,
    temperature: Annotated[float | None, _sampling("0 (greedy) to 10; by default 1.")] = None,
    top_k: Annotated[int | None, _sampling("Of the k likeliest; by default 250.")] = None,
    top_p: Annotated[float | None, _sampling("Above 0, instead of top-k.")] = None,
    guidance_scale: Annotated[
        float | None, _sampling("0 to 20, how closely to follow the text; by default 3.")
    ] = None,
) -> None:
    """How codes are drawn."""


def generation(
    duration: Annotated[float | None, _sampling("Seconds.", "--duration", "-d")] = None,
    n: Annotated[int | None, _sampling("Variations of each prompt.", "-n")] = None,
    quality: Annotated[
        Literal["draft", "standard", "high", "auto"] | None,
        _sampling("A tier of the server's; `auto`: the best within --target-s."),
    ] = None,
    target_s: Annotated[float | None, _sampling("Seconds, of `--quality auto`.")] = None,
    greedy: Annotated[bool | None, _sampling("Take the likeliest codes.")] = None,
    extend_stride: Annotated[
        float | None, _sampling("Seconds by which windows of long clips advance.")
    ] = None,
    decoder: Annotated[
        Literal["encodec", "mbd"] | None, _sampling("`mbd`: multi-band diffusion.")
    ] = None,
) -> None:
    """What a clip is."""


def output(
    format: Annotated[  # noqa: A002  # the API's name
        Literal["wav", "pcm", "flac", "mp3", "opus", "ogg", "aac"] | None,
        _file("By default the file name's ending.", "--format", "-f"),
    ] = None,
    sample_format: Annotated[Literal["s16", "s24", "f32"] | None, _file("Of wav, pcm, flac.")] = (
        None
    ),
    sample_rate: Annotated[int | None, _file("Samples a second; by default the model's.")] = None,
    bitrate: Annotated[int | None, _file("Of mp3, aac, opus, in kbit/s.")] = None,
    tag_prompt: Annotated[bool | None, _file("Whether the file tells its prompt.")] = None,
) -> None:
    """How what is made becomes a file."""


def levels(
    normalize: Annotated[
        Literal["none", "clip", "peak", "rms", "loudness"] | None, _file("The level.")
    ] = None,
    fade_in: Annotated[float | None, _file("Seconds.")] = None,
    fade_out: Annotated[float | None, _file("Seconds.")] = None,
    trim_silence: Annotated[bool | None, _file("At both ends.")] = None,
) -> None:
    """A clip's level and edges."""


def part(
    start: Annotated[float | None, _sampling("Go on from this part of it, in seconds.")] = None,
    end: Annotated[float | None, _sampling("The end of that part.")] = None,
    include_prompt: Annotated[
        bool | None, _sampling("Whether the answer begins with it; by default it does.")
    ] = None,
) -> None:
    """Which part of a file is continued."""


CLIP = (generation, sampling, output, levels)
