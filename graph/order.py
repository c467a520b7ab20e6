"""What a request to generate comes to, whichever way it is answered."""

from dataclasses import dataclass, field

from graph.audio.output import Output
from graph.audio.tags import Tags
from graph.pipeline import ClipRequest
from graph.registry import Voice


@dataclass(frozen=True)
class Order:
    """Clips to make by one model, and the files that they become."""

    voice: Voice
    clips: list[ClipRequest]
    output: Output
    return_codes: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of all clips; their texts and variations tell them apart."""
        return self.clips[0].params.seed

    def all_headers(self) -> dict[str, str]:
        """Return what the answer says of itself."""
        return {"x-seed": str(self.seed), "x-model": self.voice.model.name, **self.headers}

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
        return Tags(self.voice.model.name, params.seed, parameters, prompt)

    def samples(self, clip: ClipRequest) -> int:
        """Return the samples a channel that the codec will give."""
        codec = self.voice.codec
        frames = clip.params.frames - clip.skipped_frames
        return int(frames * codec.sample_rate / codec.frame_rate)
