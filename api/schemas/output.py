"""How clips become files; it becomes `api.audio.output.Output`."""

from dataclasses import fields
from typing import Annotated

from pydantic import Field

from api.audio.output import FormatName, Normalize, Output, SampleFormat
from api.schemas import rules
from api.schemas.base import WHOLE, RequestModel


class FileBody(RequestModel):
    """What is wanted of the files, their levels and edges aside."""

    format: Annotated[
        FormatName,
        Field(description="`opus` and `ogg` (Vorbis) are Ogg files, `aac` has ADTS frames."),
    ] = "wav"
    sample_format: Annotated[
        SampleFormat, Field(description="Of wav, pcm (both any) and flac (s16, s24).")
    ] = "s16"
    sample_rate: Annotated[
        int | None,
        Field(
            description="By default the model's, or the next that the format has.",
            json_schema_extra=rules.RATE,
        ),
        WHOLE,
    ] = None
    bitrate: Annotated[
        int | None,
        Field(description="Of mp3, aac (128) and opus (96), in kbit/s."),
        WHOLE,
    ] = None
    tag_prompt: Annotated[bool, Field(description="Whether the file tells its prompt.")] = True

    def output(self) -> Output:
        """Return what is wanted. Raises InvalidRequest where the format has no such thing."""
        names = [field.name for field in fields(Output) if field.name in type(self).model_fields]
        wanted = Output(**{name: getattr(self, name) for name in names})
        wanted.check()
        return wanted


class OutputBody(FileBody):
    """What is wanted of the files."""

    normalize: Annotated[
        Normalize,
        Field(
            description="The level, as AudioCraft's `audio_write` sets it: -1 dB of peak, "
            "-18 dB of rms, -14 LUFS of loudness; `clip` at -1 dB."
        ),
    ] = "none"
    fade_in: Annotated[float, Field(ge=0, le=60, description="Seconds.")] = 0.0
    fade_out: Annotated[float, Field(ge=0, le=60, description="Seconds.")] = 0.0
    trim_silence: Annotated[
        bool, Field(description="Leave out what is below -50 dBFS at both ends.")
    ] = False
