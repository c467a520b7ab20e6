"""Songs: sections that go on from each other, and effects over them."""

from dataclasses import dataclass, replace

from api.audio.codes_file import codebooks_at
from api.audio.finishing import decibels, loudness
from api.schemas.generation import check_length
from api.schemas.workflows import Section, SongBody
from api.service import Service
from deployments.accounts import Share
from deployments.settings import AudioGenSettings, MusicGenSettings
from engine.params import GenerationParams
from graph.errors import ApiError
from graph.registry import Voice
from graph.settings import Limits
from graph.workflows.mixing import Placed, amplified, edged, faded, matched, summed
from graph.workflows.plan import (
    Distribution,
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


@dataclass(frozen=True)
class Grid:
    """Where sections lie: in samples, and in the codec's frames around them."""

    rate: int
    hop: int
    """Samples of a frame."""
    edges: list[int]
    """Where they begin, on bars; at last, where the song ends."""
    over: int
    """Samples of a crossfade."""

    def start(self, section: int) -> int:
        """Return where a section begins to be heard: before its bar, for the crossfade."""
        return self.edges[section] - (self.over if section else 0)

    def frames(self, section: int) -> tuple[int, int]:
        """Return the first frame that it is heard in, and the one after its last."""
        return self.start(section) // self.hop, -(-self.edges[section + 1] // self.hop)


def grid_of(body: SongBody, voice: Voice) -> Grid:
    """Return where the sections lie."""
    beat_s, rate = 60 / body.tempo, voice.codec.sample_rate
    bar_s = beat_s * body.beats_per_bar
    edges, bars = [0], 0
    for section in body.sections:
        bars += _bars(section, bar_s)
        edges.append(round(bars * bar_s * rate))
    hop = round(rate / voice.codec.frame_rate)
    return Grid(rate, hop, edges, round(body.crossfade_beats * beat_s * rate))


def _bars(section: Section, bar_s: float) -> int:
    if section.bars is not None:
        return section.bars
    assert section.seconds is not None
    return max(1, round(section.seconds / bar_s))


async def plan_song(
    service: Service, share: Share, began: float, body: SongBody, asked: str
) -> Plan:
    """Return what is asked for. Raises ApiError or InvalidRequest where it cannot be had."""
    output, limits = body.output(), service.limits
    voice = await voice_of(service, MusicGenSettings, body.model)
    check_parts(len(body.sections) + len(body.effects), limits, "sections")
    grid = grid_of(body, voice)
    _check_sections(body, grid, limits)
    _check_effects(body, grid.edges[-1] / grid.rate, limits)
    drawn = replace(body.drawn("", 1), guidance_scale=body.guidance_scale)
    sections = _sections(body, grid, voice, drawn)
    effects = list[Part]()
    if body.effects:
        sound = await voice_of(service, AudioGenSettings, body.effects_model, "effects_model")
        effects = _effects(body, sound, drawn)
    distribution = None
    if body.distribution:
        codec = service.registry.codec_of(voice.model)
        bandwidth, field = body.distribution.bandwidth, "distribution.bandwidth"
        distribution = Distribution(codec, codebooks_at(voice.codec, bandwidth, field))
    return Plan(
        name="song",
        share=share,
        began=began,
        asked=asked,
        chains=[sections, *([effect] for effect in effects)],
        mixed=lambda made: mixed_song(body, grid, sections, effects, made),
        output=output,
        loudness=body.loudness,
        title="; ".join(section.params.text for section in sections),
        repeatable=body.repeatable,
        seconds=grid.edges[-1] / grid.rate,
        distribution=distribution,
    )


def _check_sections(body: SongBody, grid: Grid, limits: Limits) -> None:
    for number, section in enumerate(body.sections):
        field = f"sections.{number}"
        seconds = (grid.edges[number + 1] - grid.edges[number]) / grid.rate
        check_seconds(seconds, limits.max_duration_s, "in whole bars it lasts ", field)
        check_length(section.prompt, limits, f"{field}.prompt")
        if len(body.sections) > 1 and 2 * body.crossfade_beats * 60 / body.tempo > seconds + 1e-9:
            beats = seconds * body.tempo / 60
            message = (
                f"{body.crossfade_beats:g} beats; {field} has {beats:g}: allowed is half of it"
            )
            raise ApiError(422, "invalid_value", f"crossfade_beats: {message}", "crossfade_beats")
    check_seconds(grid.edges[-1] / grid.rate, limits.max_song_s, "the song lasts ", "sections")


def _check_effects(body: SongBody, seconds: float, limits: Limits) -> None:
    for number, effect in enumerate(body.effects):
        field = f"effects.{number}"
        check_length(effect.prompt, limits, f"{field}.prompt")
        check_seconds(effect.duration, limits.max_duration_s, "", f"{field}.duration")
        if effect.at + effect.duration > seconds + 1e-9:
            ends = effect.at + effect.duration
            message = f"{field}: it ends at {ends:g} s, and the song at {seconds:g} s"
            raise ApiError(422, "invalid_value", f"{message}; begin it sooner", f"{field}.at")


def _sections(body: SongBody, grid: Grid, voice: Voice, drawn: GenerationParams) -> list[Part]:
    parts, before = list[Part](), 0
    for number, section in enumerate(body.sections):
        first, end = grid.frames(number)
        key = f"in {body.key}" if body.key else None
        text = ", ".join(filter(None, (section.prompt, key, f"{body.tempo:g} bpm")))
        params = replace(drawn, text=text, frames=end - first, variation=number)
        parts.append(Part(section.name, voice, params, before - first if number else None))
        before = end
    return parts


def _effects(body: SongBody, voice: Voice, drawn: GenerationParams) -> list[Part]:
    parts = []
    for number, effect in enumerate(body.effects):
        frames = frames_for(effect.duration, voice)
        params = replace(drawn, text=effect.prompt, frames=frames, variation=number)
        parts.append(Part(f"effect {number + 1}", voice, params))
    return parts


def mixed_song(
    body: SongBody, grid: Grid, sections: list[Part], effects: list[Part], made: Made
) -> Mixed:
    """Fade the sections into each other, and lay the effects over them."""
    stems, timing = list[Stem](), list[Span]()
    channels = sections[0].voice.codec.channels
    for number, part in enumerate(sections):
        start, end = grid.start(number), grid.edges[number + 1]
        skipped = start - grid.frames(number)[0] * grid.hop
        samples = made[part].array()[:, skipped : skipped + end - start]
        last = number == len(sections) - 1
        samples = faded(samples, grid.over if number else 0, 0 if last else grid.over)
        stems.append(Stem(part.name, Placed(samples, start), part))
        timing.append(Span(part.name, grid.edges[number], end))
    music = loudness(summed([stem.placed for stem in stems], grid.edges[-1]), grid.rate)
    for part, effect in zip(effects, body.effects, strict=True):
        start = round(effect.at * grid.rate)
        room = min(round(effect.duration * grid.rate), grid.edges[-1] - start)
        samples = edged(heard(made[part], grid.rate, channels, room), grid.rate)
        if music is not None:
            samples = matched(samples, grid.rate, music)
        samples = amplified(samples, decibels(effect.gain_db))
        stems.append(Stem(part.name, Placed(samples, start), part))
    return Mixed(grid.rate, grid.edges[-1], stems, timing)
