"""Podcasts: intro, transitions and outro for a theme, and a bed ducked under a voice."""

from dataclasses import dataclass, replace

import numpy as np

from api.audio.finishing import decibels
from api.audio.tags import AI_GENERATED, COMPOSITE
from api.schemas.generation import check_length
from api.schemas.workflows import PodcastBody
from api.service import Service
from deployments.accounts import Share
from deployments.settings import AudioGenSettings, MusicGenSettings
from engine.params import GenerationParams, Waveform
from graph.registry import Voice
from graph.settings import Limits
from graph.workflows.mixing import (
    Placed,
    Samples,
    amplified,
    ducking,
    edged,
    faded,
    looped,
    matched,
    repeated,
)
from graph.workflows.plan import (
    Made,
    Mixed,
    Part,
    Plan,
    Span,
    Stem,
    check_parts,
    check_seconds,
    frames_for,
    heard,
    voice_of,
)

VOICE = "voice"
"""The field of the file with the speech."""
PASSAGE_S = 2.0
"""Of a bed that comes in over the intro, and leaves over the outro."""
BED_S, BED_FADE_S = 20.0, 1.0
"""The longest bed that is made, and how much of it is faded into its beginning."""
TRANSITION_S, GAP_S, CLOSE_S = 2.0, 0.5, 1.0
"""A transition; the silence beside it in a mix without a voice; music's last fade."""
TRANSITIONS = (
    "smooth transition sound",
    "chime",
    "whoosh",
    "minimal tone",
    "section divider sound",
)


@dataclass(frozen=True)
class Podcast:
    """Its parts, and what is asked of them."""

    intro: Part
    outro: Part
    transitions: list[Part]
    bed: Part | None
    speech: Waveform | None
    intro_s: float
    outro_s: float
    transition_s: float
    bed_gain_db: float
    loudness: float

    @property
    def parts(self) -> list[Part]:
        """All that are made."""
        bed = [self.bed] if self.bed else []
        return [self.intro, *bed, self.outro, *self.transitions]

    @property
    def seconds(self) -> float:
        """How long the mix lasts."""
        between = self.speech.seconds if self.speech else GAP_S
        if not self.speech:
            between += len(self.transitions) * (self.transition_s + GAP_S)
        return self.intro_s + between + self.outro_s

    @property
    def rate(self) -> int:
        """Samples a second of the mix."""
        return self.intro.voice.codec.sample_rate

    def mixed(self, made: Made) -> Mixed:
        """Put the parts together, around the voice where there is one."""
        return self._around_a_voice(made) if self.speech else self._in_a_row(made)

    def _music(self, made: Made, part: Part, seconds: float) -> Samples:
        """Return a part of so many seconds, as loud as the others."""
        channels, samples = self.intro.voice.codec.channels, round(seconds * self.rate)
        return matched(heard(made[part], self.rate, channels, samples), self.rate, self.loudness)

    def _transitions(self, made: Made) -> list[Samples]:
        return [
            edged(self._music(made, part, self.transition_s), self.rate)
            for part in self.transitions
        ]

    def _around_a_voice(self, made: Made) -> Mixed:
        assert self.speech
        assert self.bed
        rate, spoken = self.rate, matched(self.speech.array(), self.rate, self.loudness)
        intro = self._music(made, self.intro, self.intro_s)
        outro = self._music(made, self.outro, self.outro_s)
        over = min(round(PASSAGE_S * rate), intro.shape[1] // 2, outro.shape[1] // 2)
        begins, ends = intro.shape[1], intro.shape[1] + spoken.shape[1]
        around = np.pad(spoken, ((0, 0), (over, over)))
        gain = ducking(around, rate) * decibels(self.bed_gain_db)
        bed = amplified(faded(self._bed(made, around.shape[1]), over, over), gain)
        close = min(round(CLOSE_S * rate), outro.shape[1] - over)
        stems = [
            Stem("intro", Placed(faded(intro, 0, over), 0), self.intro),
            Stem("bed", Placed(bed, begins - over), self.bed),
            Stem("voice", Placed(spoken, begins), None),
            Stem("outro", Placed(faded(outro, over, close), ends), self.outro),
        ]
        unplaced = zip(self.transitions, self._transitions(made), strict=True)
        stems += [Stem(part.name, Placed(samples), part) for part, samples in unplaced]
        total = ends + outro.shape[1]
        timing = [Span("intro", 0, begins), Span("voice", begins, ends), Span("outro", ends, total)]
        return Mixed(rate, total, stems, timing)

    def _bed(self, made: Made, samples: int) -> Samples:
        """Return a bed of so many samples, by going round."""
        assert self.bed
        seconds = self.bed.params.frames / self.bed.voice.codec.frame_rate
        clip = self._music(made, self.bed, seconds)
        fade = min(round(BED_FADE_S * self.rate), clip.shape[1] // 2)
        return repeated(looped(clip, clip.shape[1] - fade), samples)

    def _in_a_row(self, made: Made) -> Mixed:
        rate, gap, close = self.rate, round(GAP_S * self.rate), round(CLOSE_S * self.rate)
        music = [self._music(made, self.intro, self.intro_s)]
        music += [self._music(made, self.outro, self.outro_s)]
        first, last = (faded(one, 0, min(close, one.shape[1])) for one in music)
        parts = [self.intro, *self.transitions, self.outro]
        stems, timing, at = list[Stem](), list[Span](), 0
        for part, samples in zip(parts, [first, *self._transitions(made), last], strict=True):
            stems.append(Stem(part.name, Placed(samples, at), part))
            timing.append(Span(part.name, at, at + samples.shape[1]))
            at += samples.shape[1] + gap
        return Mixed(rate, at - gap, stems, timing)


async def plan_podcast(
    service: Service,
    share: Share,
    began: float,
    body: PodcastBody,
    asked: str,
    voice: bytes | None,
) -> Plan:
    """Return what is asked for. Raises ApiError, InvalidRequest or InvalidAudio."""
    output, limits = body.output(), service.limits
    music = await voice_of(service, MusicGenSettings, body.model)
    intro_s, outro_s = (_seconds(body, name, limits) for name in ("intro", "outro"))
    check_length(body.theme, limits, "theme")
    check_parts(2 + body.transitions + (voice is not None), limits, "transitions")
    drawn = replace(body.drawn("", 1), guidance_scale=body.guidance_scale)
    transition_s = min(TRANSITION_S, limits.max_duration_s)
    transitions = await _transitions(service, body, drawn, transition_s)
    spoken = await _speech(service, music, voice) if voice is not None else None
    podcast = Podcast(
        intro=_part("intro", f"{body.theme}, podcast intro music", intro_s, music, drawn, 0),
        outro=_part("outro", f"{body.theme}, podcast outro music", outro_s, music, drawn, 1),
        transitions=transitions,
        bed=_bed(body, spoken, music, drawn, limits) if spoken else None,
        speech=spoken,
        intro_s=intro_s,
        outro_s=outro_s,
        transition_s=transition_s,
        bed_gain_db=body.bed_gain_db,
        loudness=body.loudness,
    )
    field = VOICE if spoken else "transitions"
    check_seconds(podcast.seconds, limits.max_song_s, "with intro and outro it lasts ", field)
    return Plan(
        name="podcast",
        share=share,
        began=began,
        asked=asked,
        chains=[[part] for part in podcast.parts],
        mixed=podcast.mixed,
        output=output,
        loudness=body.loudness,
        title=body.theme,
        repeatable=body.repeatable,
        seconds=podcast.seconds,
        source=COMPOSITE if spoken else AI_GENERATED,
    )


async def _speech(service: Service, music: Voice, data: bytes) -> Waveform:
    """Return what is said in a file, as the music's mix has it. Raises InvalidAudio."""
    rate, channels = music.codec.sample_rate, music.codec.channels
    return await service.pipeline.read(data, service.limits, rate, channels, VOICE)


def _seconds(body: PodcastBody, name: str, limits: Limits) -> float:
    """Return how long the intro or outro lasts. Raises ApiError 422."""
    seconds: float = getattr(body, name)
    if name not in body.model_fields_set:
        seconds = min(seconds, limits.max_duration_s)
    check_seconds(seconds, limits.max_duration_s, "", name)
    return seconds


def _part(
    name: str, text: str, seconds: float, voice: Voice, drawn: GenerationParams, variation: int
) -> Part:
    frames = frames_for(seconds, voice)
    return Part(name, voice, replace(drawn, text=text, frames=frames, variation=variation))


def _bed(
    body: PodcastBody, spoken: Waveform, music: Voice, drawn: GenerationParams, limits: Limits
) -> Part:
    needed = spoken.seconds + 2 * PASSAGE_S + BED_FADE_S
    seconds = min(needed, BED_S + BED_FADE_S, limits.max_duration_s)
    text = f"{body.theme}, calm background music"
    return _part("bed", text, seconds, music, drawn, 2)


async def _transitions(
    service: Service, body: PodcastBody, drawn: GenerationParams, seconds: float
) -> list[Part]:
    if not body.transitions:
        return []
    sound = await voice_of(service, AudioGenSettings, body.effects_model, "effects_model")
    return [
        _part(f"transition {number + 1}", text, seconds, sound, drawn, number)
        for number, text in enumerate(TRANSITIONS[: body.transitions])
    ]
