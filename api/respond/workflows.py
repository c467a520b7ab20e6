"""Builds the answers of workflows: a mix and its stems, as files in JSON."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field

from api.audio.encoder import Audio
from api.audio.tags import AI_GENERATED, COMPOSITE, Tags
from api.respond.clips import build_clip_tags
from api.respond.rendering import FileMaker, Rendering
from graph.tasks.task import Progress, Result, count_audio_bytes
from graph.workflows.levels import Samples
from graph.workflows.mix import Mix, Stem
from graph.workflows.mixing import resample_loop
from graph.workflows.task import MixedAudio, WorkflowTask


class Track(BaseModel):
    """An audio file and its position in the mix."""

    name: str
    start: float | None = Field(
        default=None, description="The start in seconds, for tracks that are in the mix."
    )
    duration: float
    """Seconds."""
    audio: str
    """The file, in base64."""


class Timing(BaseModel):
    """A section of a song, or a passage of a podcast, in seconds."""

    name: str
    start: float
    end: float


class WorkflowAnswer(BaseModel):
    """A mix, and the stems that it consists of."""

    model: str
    seed: int
    format: str
    sample_rate: int
    channels: int
    duration: float
    """The length of the mix, in seconds."""
    loudness: float | None = Field(
        default=None,
        description="The loudness of the mix in LUFS; it is left out if the mix is too quiet.",
    )
    mix: Track
    stems: list[Track]
    """The sum of the stems with a start is the mix; the list is empty for a mix of one part."""
    timing: list[Timing]
    distribution: Track | None = Field(default=None, description="The second mix, if requested.")


class WorkflowProgress(BaseModel):
    """The progress of a part, and of all parts."""

    part: str
    stage: str
    done: int
    total: int
    """`generate` counts frames of codes, `mix` files."""
    progress: float
    """The progress of the whole workflow, from 0 to 1."""


@dataclass(kw_only=True)
class WorkflowRendering(Rendering):
    """Builds the answer of a workflow."""

    task: WorkflowTask
    files: FileMaker

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every answer."""
        return super().headers | self.files.headers

    def content(self) -> Hashable:
        """Return what identifies the answer, except the task."""
        return super().content(), self.files.output

    def count_answer_bytes(self) -> int:
        """Return the bytes of the largest file; only one is made at a time."""
        codec = self.task.pair.codec
        audio = count_audio_bytes(self.task.seconds, codec.sample_rate, codec.channels)
        return audio + self.files.count_bytes(audio, codec.sample_rate)

    def describe_progress(self, event: Progress) -> WorkflowProgress:
        """Return a progress event's data."""
        return WorkflowProgress(
            part=event.name,
            stage=event.stage,
            done=event.done,
            total=event.total,
            progress=event.progress,
        )

    def describe_result(self, result: Result) -> WorkflowAnswer:
        """Encode the mix, the stems and the distribution."""
        assert isinstance(result, MixedAudio)
        mix, rate, tags = result.mix, result.mix.sample_rate, self._build_tags()
        stems = mix.stems if len(mix.stems) > 1 else []
        distribution = result.distribution
        return WorkflowAnswer(
            model=self.task.model,
            seed=self.task.seed,
            format=self.files.output.format,
            sample_rate=self.files.output.rate_for(rate),
            channels=mix.channels,
            duration=mix.total / rate,
            loudness=result.loudness,
            mix=self._build_track(result, "mix", mix.sum_blocks, mix.total, 0, tags),
            stems=[
                self._build_stem_track(result, stem)
                for stem in stems
            ],
            timing=[
                Timing(name=span.name, start=span.start / rate, end=span.end / rate)
                for span in mix.timing
            ],
            distribution=None
            if distribution is None
            else self._build_track(
                result, "distribution", lambda: (distribution,), mix.total, 0, tags
            ),
        )  # fmt: skip

    def _build_stem_track(self, result: MixedAudio, stem: Stem) -> Track:
        samples, start = stem.placed.samples, stem.placed.start
        tags = self._build_stem_tags(stem)
        length = samples.shape[1]
        return self._build_track(result, stem.name, lambda: (samples,), length, start, tags)

    def _build_track(
        self,
        result: MixedAudio,
        name: str,
        read: Callable[[], Iterable[Samples]],
        samples: int,
        start: int | None,
        tags: Tags | None,
    ) -> Track:
        """Describe a track, whose samples are read in blocks when its file is made."""
        rate = result.mix.sample_rate
        return Track(
            name=name,
            start=None if start is None else start / rate,
            duration=samples / rate,
            audio=self.embedded.add_file(
                lambda: self._build_file(result.mix, read(), samples, tags)
            ),
        )

    def _build_file(
        self, mix: Mix, blocks: Iterable[Samples], samples: int, tags: Tags | None
    ) -> Iterator[bytes]:
        audio = Audio(blocks, mix.sample_rate, mix.channels, samples)
        if mix.is_loop:  # a plain change of rate would break the transition from end to beginning
            rate = self.files.output.rate_for(mix.sample_rate)
            loop = np.concatenate(list(blocks), axis=1)
            audio = Audio.of_one_block(resample_loop(loop, mix.sample_rate, rate), rate)
        return self.files.build_file(audio, tags)

    def _build_tags(self) -> Tags:
        """Build the tags of the file of the mix."""
        task = self.task
        parameters: dict[str, object] = {"workflow": task.name, "duration": task.seconds}
        prompt = task.title if self.files.output.tag_prompt else None
        source = COMPOSITE if task.speech else AI_GENERATED
        return Tags(task.model, task.seed, parameters, prompt, source)

    def _build_stem_tags(self, stem: Stem) -> Tags | None:
        """Build the tags of a generated stem's file; the stem of an upload has no tags."""
        if stem.clip is None:
            return None
        pair, params = stem.clip.pair, stem.clip.params
        return build_clip_tags(pair, params, self.files.output, "encodec", AI_GENERATED)
