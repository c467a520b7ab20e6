"""What a request to generate comes to, whichever way it is answered."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from api.audio.output import Output
from api.audio.tags import AI_GENERATED, COMPOSITE, Tags
from deployments.accounts import Charge, Share
from engine.params import GenerationParams
from graph.pipeline import ClipRequest
from graph.registry import Voice


@dataclass(frozen=True)
class Order:
    """Clips to make by one model, and the files that they become."""

    share: Share
    """Whose it is."""
    began: float
    """When it was asked for, of `time.perf_counter`."""
    voice: Voice
    clips: list[ClipRequest]
    output: Output
    return_codes: bool = False
    repeatable: bool = False
    """Whether the same request would get the same again, and may be given what is kept."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of all clips; their texts and variations tell them apart."""
        return self.clips[0].params.seed

    @property
    def row_seconds(self) -> float:
        """Its price: seconds of audio to make, by the rows that each step takes."""
        return self.charge.row_seconds

    @property
    def charge(self) -> Charge:
        """What its share owes for it while it lasts."""
        return charge_of(self.share, self.voice, [clip.params for clip in self.clips])

    def key(self) -> str:
        """Return a hash of what makes its answer, uploads too: not for the event loop.

        It is of one API key: others shall not learn what was asked for.
        """
        model = self.voice.model.name
        clips = tuple(_without_uploads(clip) for clip in self.clips)
        headers = tuple(sorted(self.headers.items()))
        whole = self.share.name, model, clips, self.output, self.return_codes, headers
        return sha256(repr(whole).encode()).hexdigest()

    def all_headers(self) -> dict[str, str]:
        """Return what the answer says of itself."""
        return {"x-seed": str(self.seed), "x-model": self.voice.model.name, **self.headers}

    def name_to_save(self) -> dict[str, str]:
        """Return the header by which what shows a file to people offers to save it."""
        name = f"clip-{self.seed}.{self.output.format}"
        return {"content-disposition": f'attachment; filename="{name}"'}

    def tags(self, clip: ClipRequest) -> Tags:
        """Return what a clip's file says of itself."""
        params = clip.params
        parameters: dict[str, object] = {
            "duration": params.frames / self.voice.codec.frame_rate,
            "temperature": params.temperature,
            "top_k": params.top_k,
            "top_p": params.top_p,
            "guidance_scale": params.guidance_scale,
            "variation": params.variation,
            "decoder": "mbd" if clip.diffusion else "encodec",
        }
        prompt = params.text if self.output.tag_prompt else None
        joined = params.prompt is not None and clip.include_prompt
        source = COMPOSITE if joined else AI_GENERATED
        return Tags(self.voice.model.name, params.seed, parameters, prompt, source)

    def samples(self, clip: ClipRequest) -> int:
        """Return the samples a channel that the codec will give."""
        codec = self.voice.codec
        frames = clip.params.frames - clip.skipped_frames
        return int(frames * codec.sample_rate / codec.frame_rate)


def charge_of(share: Share, voice: Voice, clips: Sequence[GenerationParams]) -> Charge:
    """Return what a share owes for clips of one model while they are made."""
    rate = voice.codec.frame_rate
    row_seconds = sum(_rows(params) * _frames_to_make(params) / rate for params in clips)
    return Charge(share.name, share.weight, voice.model.name, row_seconds, len(clips))


def _rows(params: GenerationParams) -> int:
    """Return 2 under guidance, a conditional and a null row; else 1."""
    return 1 if params.guidance_scale == 1 else 2


def _frames_to_make(params: GenerationParams) -> int:
    return params.frames - (params.prompt.frames if params.prompt else 0)


def _without_uploads(clip: ClipRequest) -> Hashable:
    uploads = clip.params.melody, clip.params.prompt
    params = replace(clip.params, melody=None, prompt=None)
    return replace(clip, params=params), *(one and sha256(one.data).digest() for one in uploads)
