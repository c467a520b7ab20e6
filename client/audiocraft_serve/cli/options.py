"""Declares the options of generated audio in groups; the options have the API's parameter names.

Each function is a group; only its signature is used.
"""

from typing import Annotated, Any

import typer

from audiocraft_serve.parameters import Decoder, Format, Normalize, Quality, SampleFormat

SAMPLING, FILE = "Generation", "Output file"


def _option(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=SAMPLING)


def _file_option(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=FILE)


def sampling_options(
    model: Annotated[str | None, _option("A name that `models` lists.", "--model", "-m")] = None,
    seed: Annotated[int | None, _option("Equal seeds give equal clips.")] = None,
    temperature: Annotated[float | None, _option("0 (greedy) to 10; default 1.")] = None,
    top_k: Annotated[int | None, _option("Draw from the k likeliest codes; default 250.")] = None,
    top_p: Annotated[
        float | None, _option("Draw from the likeliest codes of this total probability.")
    ] = None,
    guidance_scale: Annotated[
        float | None, _option("How closely to follow the text, 0 to 20; default 3.")
    ] = None,
) -> None:
    """Declare the options of sampling."""


def generation_options(
    duration: Annotated[float | None, _option("Length in seconds.", "--duration", "-d")] = None,
    n: Annotated[int | None, _option("Number of variations per prompt.", "-n")] = None,
    quality: Annotated[
        Quality | None,
        _option("Quality tier; `auto`: the best that is ready within --target-s."),
    ] = None,
    target_s: Annotated[float | None, _option("Seconds allowed for `--quality auto`.")] = None,
    greedy: Annotated[bool | None, _option("Always take the likeliest code.")] = None,
    extend_stride: Annotated[
        float | None, _option("Seconds between the windows of a long clip.")
    ] = None,
    decoder: Annotated[
        Decoder | None,
        _option("Decoder of the codes; `mbd` is multi-band diffusion."),
    ] = None,
) -> None:
    """Declare the options of a clip."""


def file_options(
    format: Annotated[  # noqa: A002  # the API's name
        Format | None,
        _file_option("By default, as the file's suffix says.", "--format", "-f"),
    ] = None,
    sample_format: Annotated[
        SampleFormat | None, _file_option("Sample format of wav, pcm and flac.")
    ] = None,
    sample_rate: Annotated[
        int | None, _file_option("Sample rate in Hz; default: the model's.")
    ] = None,
    bitrate: Annotated[int | None, _file_option("Bit rate of mp3, aac, opus in kbit/s.")] = None,
    tag_prompt: Annotated[bool | None, _file_option("Write the prompt into the metadata.")] = None,
) -> None:
    """Declare the options of the output file."""


def level_options(
    normalize: Annotated[
        Normalize | None,
        _file_option("Normalization of the level."),
    ] = None,
    fade_in: Annotated[float | None, _file_option("Fade-in in seconds.")] = None,
    fade_out: Annotated[float | None, _file_option("Fade-out in seconds.")] = None,
    trim_silence: Annotated[bool | None, _file_option("Remove silence at both ends.")] = None,
) -> None:
    """Declare the options of a clip's level and edges."""


def continuation_options(
    start: Annotated[float | None, _option("Start of the continued part, in seconds.")] = None,
    end: Annotated[float | None, _option("End of the continued part, in seconds.")] = None,
    include_prompt: Annotated[
        bool | None, _option("Begin the clip with the continued part; default: yes.")
    ] = None,
) -> None:
    """Declare the options that select the part of a file to continue."""


CLIP_OPTIONS = (generation_options, sampling_options, file_options, level_options)
