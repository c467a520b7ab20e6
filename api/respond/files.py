"""Builds the answers of routes that process files: codes, decoded audio, and analyses."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.audio import codes_file
from api.audio.file import measure_seconds
from api.respond.rendering import FileAnswer, FileMaker, Rendering
from engine.params import Waveform
from graph.cache import AnswerParts
from graph.tasks.audio_files import (
    AnalyzedAudio,
    AnalyzeTask,
    DecodedAudio,
    DecodeTask,
    DiffuseTask,
    EncodedAudio,
    EncodeTask,
)
from graph.tasks.task import Result

SAFETENSORS = "application/octet-stream"
SAVE_WAV = {"content-disposition": 'attachment; filename="decoded.wav"'}


class CodesAnswer(BaseModel):
    """The codes of a file."""

    model: str
    codes: list[list[int]]
    """The codes as [codebooks][frames]."""
    codebooks: int
    frames: int
    frame_rate: float
    """Frames per second."""
    sample_rate: int
    channels: int
    samples: int
    """The file's samples per channel at `sample_rate`; send it to decode to the same length."""


class Scales(BaseModel):
    """The mean logit of each sub-discriminator; a high logit means real audio."""

    mpd: list[float]
    """One logit for each period."""
    msd: list[float]
    """One logit for each scale; all scales get the same signal, because AudioCraft discards the
    downsampled one."""
    msstftd: list[float]
    """One logit for each resolution."""


class AnalyzeAnswer(BaseModel):
    """The scores that the discriminators give a file."""

    mpd_score: Annotated[float, Field(description="The mean sigmoid of the first MPD logits.")]
    msd_score: Annotated[float, Field(description="The mean sigmoid of the first MSD logits.")]
    msstftd_score: Annotated[
        float, Field(description="The mean sigmoid of the logits of the first resolution.")
    ]
    feature_maps: Annotated[
        list[list[float]],
        Field(
            description="One list for each layer of these three sub-discriminators, in this order. "
            "It has the mean absolute activation of each channel; layers with more than 32 "
            "channels are averaged to 32."
        ),
    ]
    is_real: Annotated[bool, Field(description="Whether the mean score is above the threshold.")]
    probability: Annotated[
        float | None,
        Field(
            description="The calibrated probability that the file is real, compared with the "
            "generated audio that these discriminators know. It is more reliable than the scores. "
            "It is null if the discriminators are not calibrated."
        ),
    ]
    scales: Scales
    threshold: float
    model: str


@dataclass(kw_only=True)
class CodesRendering(Rendering):
    """Builds an answer with codes: JSON, or a safetensors file with the fields as metadata."""

    task: EncodeTask
    layout: Literal["json", "safetensors"]

    def content(self) -> Hashable:
        """Return what identifies the answer, except the task."""
        return super().content(), self.layout

    def render(self, result: Result) -> AnswerParts:
        """Return the codes in the layout that was asked for."""
        if self.layout == "json":
            return super().render(result)
        assert isinstance(result, EncodedAudio)
        file = codes_file.write_codes(result.codes, self.task.info, result.samples, self.task.model)
        return AnswerParts((file,), SAFETENSORS, self.headers)

    def describe_result(self, result: Result) -> CodesAnswer:
        """Return the codes as JSON describes them."""
        assert isinstance(result, EncodedAudio)
        codes, info = result.codes, self.task.info
        return CodesAnswer(
            model=self.task.model,
            codes=codes.array().tolist(),
            codebooks=codes.codebooks,
            frames=codes.frames,
            frame_rate=info.frame_rate,
            sample_rate=info.sample_rate,
            channels=info.channels,
            samples=result.samples,
        )


@dataclass(kw_only=True)
class WavRendering(Rendering):
    """Builds an answer with decoded audio, a 16-bit WAV file."""

    task: DecodeTask | DiffuseTask
    files: FileMaker

    @property
    def headers(self) -> dict[str, str]:
        """The headers, with a file name."""
        return SAVE_WAV | super().headers

    def count_answer_bytes(self) -> int:
        """Return the bytes of the file."""
        return self.files.count_bytes(self.task.count_bytes(), self.task.info.sample_rate)

    def render(self, result: Result) -> AnswerParts:
        """Return the file."""
        assert isinstance(result, DecodedAudio)
        file = b"".join(self._build_file(result.audio))
        return AnswerParts((file,), self.files.output.kind.media_type, self.headers)

    def describe_result(self, result: Result) -> FileAnswer:
        """Describe the file as the data of an event."""
        assert isinstance(result, DecodedAudio)
        audio = result.audio
        return FileAnswer(
            model=self.task.model,
            seed=self.task.seed,
            format=self.files.output.format,
            duration=measure_seconds(audio, self.files.output),
            sample_rate=audio.sample_rate,
            channels=audio.channels,
            audio=self.embedded.add_file(lambda: self._build_file(audio)),
        )

    def _build_file(self, audio: Waveform) -> Iterator[bytes]:
        return self.files.build_clip(audio.array(), audio.sample_rate, None)


@dataclass(kw_only=True)
class AnalysisRendering(Rendering):
    """Builds the answer of an analysis."""

    task: AnalyzeTask
    threshold: float
    leaves_out_null: bool = False

    def content(self) -> Hashable:
        """Return what identifies the answer, except the task."""
        return super().content(), self.threshold

    def describe_result(self, result: Result) -> AnalyzeAnswer:
        """Return the analysis as JSON describes it."""
        assert isinstance(result, AnalyzedAudio)
        found = result.analysis
        return AnalyzeAnswer(
            mpd_score=found.scores["mpd"],
            msd_score=found.scores["msd"],
            msstftd_score=found.scores["msstftd"],
            feature_maps=found.feature_maps,
            is_real=found.is_real(self.threshold),
            probability=found.probability,
            scales=Scales(**found.logits),
            threshold=self.threshold,
            model=self.task.model,
        )
