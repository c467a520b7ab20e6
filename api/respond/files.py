"""Answers of the endpoints of files: codes, decoded audio, and analyses."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.audio import codes_file
from api.respond.clips import encode_base64
from api.respond.rendering import FileAnswer, FileMaker, Rendering
from graph.cache import Answer
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
    """A file's codes."""

    model: str
    codes: list[list[int]]
    """[codebooks][frames]."""
    codebooks: int
    frames: int
    frame_rate: float
    """Frames per second."""
    sample_rate: int
    channels: int
    samples: int
    """Samples per channel at that rate; decoding with this number gives the file's own length."""


class Scales(BaseModel):
    """The mean logit of each sub-discriminator; a high one means real."""

    mpd: list[float]
    """One for each period."""
    msd: list[float]
    """One for each scale; all hear the same signal, as in AudioCraft, which drops the downsampled
    one."""
    msstftd: list[float]
    """One for each resolution."""


class AnalyzeAnswer(BaseModel):
    """What the discriminators say of a file."""

    mpd_score: Annotated[float, Field(description="Mean sigmoid of the first period's logits.")]
    msd_score: Annotated[float, Field(description="Mean sigmoid of the first scale's logits.")]
    msstftd_score: Annotated[
        float, Field(description="Mean sigmoid of the first resolution's logits.")
    ]
    feature_maps: Annotated[
        list[list[float]],
        Field(
            description="One list for each layer of those three, in that order: the mean absolute "
            "activation of each channel, of at most 32 (wider layers are averaged)."
        ),
    ]
    is_real: Annotated[bool, Field(description="Whether the mean score is above the threshold.")]
    probability: Annotated[
        float | None,
        Field(
            description="The figure to trust: the calibrated probability that the file is real, "
            "against the generated audio that these discriminators know. Null: not calibrated."
        ),
    ]
    scales: Scales
    threshold: float
    model: str


@dataclass(kw_only=True)
class CodesRendering(Rendering):
    """How codes are answered: in JSON, or as a safetensors file with the same as metadata."""

    task: EncodeTask
    layout: Literal["json", "safetensors"]

    def content(self) -> Hashable:
        """Return what makes the answer beside the task."""
        return super().content(), self.layout

    def render(self, result: Result) -> Answer:
        """Return the codes in the layout that was asked for."""
        if self.layout == "json":
            return super().render(result)
        assert isinstance(result, EncodedAudio)
        file = codes_file.write_codes(result.codes, self.task.info, result.samples, self.task.model)
        return Answer(file, SAFETENSORS, self.headers)

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
    """How decoded audio is answered: as a 16-bit WAV file."""

    task: DecodeTask | DiffuseTask
    files: FileMaker

    @property
    def headers(self) -> dict[str, str]:
        """The headers, with a name to save the file by."""
        return SAVE_WAV | super().headers

    def render(self, result: Result) -> Answer:
        """Return the file."""
        assert isinstance(result, DecodedAudio)
        file = self.files.make_file(result.audio, None)
        return Answer(file.data, self.files.output.kind.media_type, self.headers)

    def describe_result(self, result: Result) -> FileAnswer:
        """Return the file as an event brings it."""
        assert isinstance(result, DecodedAudio)
        file = self.files.make_file(result.audio, None)
        return FileAnswer(
            model=self.task.model,
            seed=self.task.seed,
            format=self.files.output.format,
            duration=file.seconds,
            sample_rate=result.audio.sample_rate,
            channels=result.audio.channels,
            audio=encode_base64(file.data),
        )


@dataclass(kw_only=True)
class AnalysisRendering(Rendering):
    """How an analysis is answered."""

    task: AnalyzeTask
    threshold: float
    leaves_out_null: bool = False

    def content(self) -> Hashable:
        """Return what makes the answer beside the task."""
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
