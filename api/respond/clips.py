"""Builds the answers of generations: a file, clips in JSON, a growing file, or events."""

import time
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from api.audio.file import GrowingFile, measure_seconds
from api.audio.output import Output
from api.audio.tags import AI_GENERATED, COMPOSITE, Tags
from api.respond.rendering import FileMaker, Rendering
from engine.params import GenerationParams
from graph.cache import AnswerParts
from graph.registry import ModelWithCodec
from graph.tasks.generation import Clips, GenerationTask
from graph.tasks.task import AudioPart, Clip, Event, Result, count_audio_bytes


class GeneratedClip(BaseModel):
    """One generated clip."""

    prompt: str
    variation: int
    """From 0 to n - 1; the same prompt, seed and variation give the same clip."""
    duration: float
    """Seconds."""
    sample_rate: int
    channels: int
    audio: str | None = Field(default=None, description="The file, in base64.")
    codes: list[list[int]] | None = None
    """The codes [codebooks][frames], if the request asked for them."""


class GenerationsAnswer(BaseModel):
    """Several clips, or one with its codes."""

    model: str
    seed: int
    format: str
    clips: list[GeneratedClip]


class AudioEvent(BaseModel):
    """The next bytes of a clip's file."""

    clip: int
    audio: str
    """Bytes in base64; the bytes of all events of a clip form its file."""


@dataclass(kw_only=True)
class ClipsRendering(Rendering):
    """Builds the answer of a generation."""

    task: GenerationTask
    files: FileMaker
    return_codes: bool = False
    growing: dict[int, GrowingFile] = field(default_factory=dict)
    """The files of clips that are streamed."""
    seconds: dict[int, float] = field(default_factory=dict)
    """The lengths of the clips' files in seconds, as soon as they are known."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every answer; only whole files are signed."""
        return super().headers | ({} if self.task.streamed else self.files.headers)

    @property
    def is_file(self) -> bool:
        """Whether the answer is the file of a single clip, not JSON."""
        return len(self.task.clips) == 1 and not self.return_codes

    @property
    def file_headers(self) -> dict[str, str]:
        """The headers of an answer that is a file, with a file name."""
        name = f"clip-{self.task.seed}.{self.files.output.format}"
        return self.headers | {"content-disposition": f'attachment; filename="{name}"'}

    @property
    def media_type(self) -> str:
        """The media type of the files."""
        return self.files.output.kind.media_type

    def content(self) -> Hashable:
        """Return what identifies the answer, except the task: the output and the codes."""
        return super().content(), self.files.output, self.return_codes

    def count_answer_bytes(self) -> int:
        """Return the bytes of all files, which JSON contains in base64; 0 if they are streamed."""
        if self.task.streamed:
            return 0
        codec, frames = self.task.pair.codec, sum(c.params.frames for c in self.task.clips)
        rate = codec.sample_rate
        audio = count_audio_bytes(frames / codec.frame_rate, rate, codec.channels)
        files = self.files.count_bytes(audio, rate)
        return files if self.is_file else files * 4 // 3

    def render(self, result: Result) -> AnswerParts:
        """Return the file of the only clip, or all clips in JSON."""
        if not self.is_file:
            return super().render(result)
        assert isinstance(result, Clips)
        (clip,) = result.clips
        file = b"".join(self._build_whole(clip))
        timing = {"server-timing": format_timing(clip.seconds, self.task.began)}
        return AnswerParts((file,), self.media_type, self.file_headers | timing)

    def describe_result(self, result: Result) -> GenerationsAnswer:
        """Describe all clips, with their files unless those were already sent."""
        assert isinstance(result, Clips)
        sent = bool(self.seconds)
        clips = [self._describe_clip(clip, sent=sent) for clip in result.clips]
        return GenerationsAnswer(
            model=self.task.model,
            seed=self.task.seed,
            format=self.files.output.format,
            clips=clips,
        )

    def _describe_clip(self, clip: Clip, *, sent: bool) -> GeneratedClip:
        request, codec = self.task.clips[clip.clip], self.task.pair.codec
        audio = None if sent else self._embed_file(clip)
        return GeneratedClip(
            prompt=request.params.text,
            variation=request.params.variation,
            duration=self.seconds[clip.clip],
            sample_rate=self.files.output.rate_for(codec.sample_rate),
            channels=codec.channels,
            audio=audio,
            codes=clip.codes.array().tolist() if self.return_codes else None,
        )

    def _embed_file(self, clip: Clip) -> str:
        """Return the mark of a whole clip's file."""
        assert clip.audio
        self.seconds[clip.clip] = measure_seconds(clip.audio, self.files.output)
        return self.embedded.add_file(lambda: self._build_whole(clip))

    def _build_whole(self, clip: Clip) -> Iterator[bytes]:
        assert clip.audio
        tags = self._build_tags(clip.clip)
        return self.files.build_clip(clip.audio.array(), clip.audio.sample_rate, tags)

    def build_messages(self, event: Event) -> list[tuple[str, BaseModel]]:
        """Return the messages of an event, such as the audio of a clip. Call it on a thread."""
        if not isinstance(event, AudioPart | Clip):
            return super().build_messages(event)
        if isinstance(event, Clip) and event.audio:
            return [("audio", AudioEvent(clip=event.clip, audio=self._embed_file(event)))]
        audio = self.embed_bytes(event)
        return [("audio", AudioEvent(clip=event.clip, audio=audio))] if audio else []

    def embed_bytes(self, event: Event) -> str | None:
        """Return the mark of the next bytes of a streamed clip; None where there are none."""
        data = self.build_bytes(event)
        return self.embedded.add_file(lambda: [data]) if data else None

    def build_bytes(self, event: Event) -> bytes:
        """Return the next bytes of a streamed clip's file. Call it on a thread."""
        if isinstance(event, AudioPart):
            if event.clip not in self.growing:
                self.growing[event.clip] = self._open_file(event)
            return self.growing[event.clip].add_samples(event.audio)
        if isinstance(event, Clip):
            self.seconds[event.clip] = event.samples / self.task.pair.codec.sample_rate
            return self.growing[event.clip].finish()
        return b""

    def _open_file(self, part: AudioPart) -> GrowingFile:
        codec, tags = self.task.pair.codec, self._build_tags(part.clip)
        rate, channels = codec.sample_rate, codec.channels
        return GrowingFile(self.files.output, rate, channels, part.total_samples, tags)

    def _build_tags(self, number: int) -> Tags:
        clip = self.task.clips[number]
        joined = self.task.continues and clip.include_prompt
        source = COMPOSITE if joined else AI_GENERATED
        decoder = "mbd" if clip.diffusion else "encodec"
        return build_clip_tags(self.task.pair, clip.params, self.files.output, decoder, source)


def build_clip_tags(
    pair: ModelWithCodec, params: GenerationParams, output: Output, decoder: str, source: str
) -> Tags:
    """Build the tags of a generated clip's file."""
    parameters: dict[str, object] = {
        "duration": params.frames / pair.codec.frame_rate,
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "guidance_scale": params.guidance_scale,
        "variation": params.variation,
        "decoder": decoder,
    }
    prompt = params.text if output.tag_prompt else None
    return Tags(pair.settings.name, params.seed, parameters, prompt, source)


def format_timing(stages: Mapping[str, float], began: float) -> str:
    """Format the header `server-timing`: each stage, and the total since `began`, in ms."""
    total = {**stages, "total": time.perf_counter() - began}
    return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in total.items())
