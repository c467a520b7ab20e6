"""What a workflow comes to: parts to generate, and how they are mixed."""

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256

from api.audio.output import Output
from api.audio.tags import AI_GENERATED, Tags
from api.service import Service
from deployments.accounts import Charge, Share
from deployments.settings import EnCodecSettings, TokenModelSettings
from engine.params import Codes, GenerationParams, Waveform
from graph.errors import ApiError
from graph.making import charged
from graph.order import Order
from graph.pipeline import ClipRequest
from graph.registry import Voice
from graph.settings import Limits
from graph.workflows.mixing import Placed, Samples, of_channels, resampled

CONTEXT_S = 5.0
"""Of the part before, so much is what a part goes on from."""


@dataclass(frozen=True, eq=False)
class Part:
    """A clip to generate. No two are equal: each is made once."""

    name: str
    voice: Voice
    params: GenerationParams
    overlap: int | None = None
    """It goes on from the part before it in its chain, but for so many frames at that one's end,
    which it makes anew. None: it goes on from nothing."""

    def request(self, before: Codes | None) -> ClipRequest:
        """Return the clip, which goes on from the codes of the part before, and begins after."""
        if self.overlap is None:
            return ClipRequest(self.params)
        assert before is not None, "the first of a chain goes on from nothing"
        assert before.frames > self.overlap, "nothing is left to go on from"
        context = int(CONTEXT_S * self.voice.codec.frame_rate)
        known = Codes.pack(before.array()[:, : before.frames - self.overlap][:, -context:])
        frames = known.frames + self.params.frames
        params = replace(self.params, frames=frames, prompt=known)
        return ClipRequest(params, include_prompt=False)


Made = Mapping[Part, Waveform]


@dataclass(frozen=True)
class Stem:
    """What a mix is made of."""

    name: str
    placed: Placed
    part: Part | None
    """What made it; None: it was uploaded."""


@dataclass(frozen=True)
class Span:
    """A section of a song, or a passage of a podcast, in samples."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Mixed:
    """Stems in their places. One alone is the whole mix."""

    sample_rate: int
    total: int
    """Samples of the mix."""
    stems: Sequence[Stem]
    timing: Sequence[Span]
    is_loop: bool = False


@dataclass(frozen=True)
class Distribution:
    """A second mix, through a codec."""

    codec: EnCodecSettings
    codebooks: int


@dataclass(frozen=True)
class Plan:
    """A workflow, before anything is made."""

    name: str
    share: Share
    """Whose it is."""
    began: float
    """When it was asked for, of `time.perf_counter`."""
    asked: str
    """The hash of its body and files."""
    chains: Sequence[Sequence[Part]]
    """Made at once; the parts of one, one after the other. The first part's model names it all."""
    mixed: Callable[[Made], Mixed]
    """Puts them together; for a thread."""
    output: Output
    loudness: float
    """LUFS to bring the mix to."""
    title: str
    """What the mix's file says that it was made from."""
    repeatable: bool
    """Whether the same request would get the same again, and may be given what is kept."""
    seconds: float
    """Of the mix."""
    distribution: Distribution | None = None
    source: str = AI_GENERATED
    """Of the mix, of IPTC's digital source types."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> list[Part]:
        """All of them."""
        return [part for chain in self.chains for part in chain]

    @property
    def voice(self) -> Voice:
        """The model that it is named by."""
        return self.parts[0].voice

    @property
    def seed(self) -> int:
        """The seed of all parts."""
        return self.parts[0].params.seed

    @property
    def orders(self) -> list[Order]:
        """What it asks of each model."""
        by_model: dict[str, list[Part]] = {}
        for part in self.parts:
            by_model.setdefault(part.voice.model.name, []).append(part)
        return [self.order_of(*parts) for parts in by_model.values()]

    def order_of(self, *parts: Part) -> Order:
        """Return what some parts ask of their model."""
        clips = [ClipRequest(part.params) for part in parts]
        return Order(self.share, self.began, parts[0].voice, clips, self.output)

    def key(self) -> str:
        """Return a hash of what makes its answer. It is of one API key."""
        made = [(p.name, p.voice.model.name, p.params.frames) for p in self.parts]
        whole = self.share.name, self.name, self.asked, self.seed, self.seconds, made
        return sha256(repr(whole).encode()).hexdigest()

    def tags(self) -> Tags:
        """Return what the mix's file says of itself."""
        parameters: dict[str, object] = {"workflow": self.name, "duration": self.seconds}
        prompt = self.title if self.output.tag_prompt else None
        return Tags(self.voice.model.name, self.seed, parameters, prompt, self.source)

    def tags_of(self, stem: Stem) -> Tags | None:
        """Return the same of a stem; an upload says nothing: nobody made it here."""
        if stem.part is None:
            return None
        order = self.order_of(stem.part)
        return order.tags(order.clips[0])

    @asynccontextmanager
    async def charged(self, service: Service) -> AsyncIterator[None]:
        """Hold the charges of all its models. Raises ApiError 429 where one is not let in.

        It is one request: only its first charge counts against the rate and the bound of its key,
        else what comes alone could be refused for its own beginning.
        """
        async with AsyncExitStack() as charges:
            share = self.share
            for order in self.orders:
                await charges.enter_async_context(charged(service, replace(order, share=share)))
                share = replace(self.share, requests_per_minute=None, row_seconds=None)
            if self.distribution:
                codec = self.distribution.codec.name
                charge = Charge(share.name, share.weight, codec, self.seconds)
                await charges.enter_async_context(service.admission.charged(share, charge))
            yield


def check_seconds(seconds: float, most: float, what: str, field: str, least: float = 0) -> None:
    """Raise ApiError 422 where something lasts too short or too long."""
    if not least <= seconds <= most:
        allowed = f"from {least:g} to {most:g} s" if least else f"up to {most:g} s"
        message = f"{field}: {what}{seconds:g} s; allowed: {allowed}"
        raise ApiError(422, "invalid_value", message, field)


def check_parts(parts: int, limits: Limits, field: str) -> None:
    """Raise ApiError 422 where a workflow has too many."""
    if parts > limits.max_clips:
        message = f"{field}: {parts} parts in one request; allowed: up to {limits.max_clips}"
        raise ApiError(422, "invalid_value", message, field)


def frames_for(seconds: float, voice: Voice) -> int:
    """Return the frames that hold so many seconds."""
    return max(1, math.ceil(round(seconds * voice.codec.frame_rate, 6)))


async def voice_of(
    service: Service, kind: type[TokenModelSettings], name: str | None, field: str = "model"
) -> Voice:
    """Return the model `name`, or the first of its kind. Raises ApiError 404."""
    wanted = kind if name is None else TokenModelSettings
    return await service.registry.voice(service.registry.pick(wanted, name, field))


def heard(audio: Waveform, rate: int, channels: int, samples: int) -> Samples:
    """Return the first samples of a clip, as a mix has them."""
    made = resampled(audio.array(), audio.sample_rate, rate)
    return of_channels(made, channels)[:, :samples]
