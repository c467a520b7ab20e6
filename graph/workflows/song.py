"""Plans and mixes songs: sections that continue each other, and effects over them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graph.errors import ApiError
from graph.registry import ModelWithCodec, count_frames, find_language_model
from graph.settings import Limits, check_clip_count, check_seconds, check_text
from graph.workflows.distribution import Distribution
from graph.workflows.levels import db_to_factor, measure_block_loudness
from graph.workflows.mix import Material, Mix, Stem, TimeSpan
from graph.workflows.mixing import (
    Placed,
    apply_gain,
    cut_clip,
    fade_edges,
    fade_ends,
    match_loudness,
    sum_blocks,
)
from graph.workflows.planned_clip import PlannedClip
from graph.workflows.task import Context, WorkflowTask


@dataclass(frozen=True)
class Section:
    """A part of a song; it lasts `bars`, or the number of bars nearest to `seconds`."""

    name: str
    prompt: str
    bars: int | None
    seconds: float | None


@dataclass(frozen=True)
class Effect:
    """A sound laid over a song."""

    prompt: str
    at: float
    """The start of the sound in seconds of the song."""
    duration: float
    gain_db: float
    """The gain of the sound in dB; 0 is as loud as the music."""


@dataclass(frozen=True)
class Song:
    """The parameters of a song."""

    sections: Sequence[Section]
    key: str | None
    tempo: float
    """The tempo in beats per minute."""
    beats_per_bar: int
    crossfade_beats: float
    effects: Sequence[Effect]
    effects_model: str | None
    loudness: float

    @property
    def beat_s(self) -> float:
        """The length of a beat in seconds."""
        return 60 / self.tempo

    @property
    def bar_s(self) -> float:
        """The length of a bar in seconds."""
        return self.beat_s * self.beats_per_bar

    def count_bars(self, section: Section) -> int:
        """Return the bars of a section."""
        if section.bars is not None:
            return section.bars
        assert section.seconds is not None
        return max(1, round(section.seconds / self.bar_s))

    def measure_seconds(self, *sections: Section) -> float:
        """Return the length of sections; rounded, so that a sum of bars is not above a limit."""
        return round(sum(map(self.count_bars, sections)) * self.bar_s, 9)


@dataclass(frozen=True)
class Grid:
    """The places of the sections in samples, from which their codec frames follow."""

    rate: int
    hop: int
    """The number of samples in a frame."""
    edges: list[int]
    """The first sample of each section, which is on a bar, and the end of the song."""
    over: int
    """The number of samples in a crossfade."""

    def compute_start(self, section: int) -> int:
        """Return the first sample at which a section is heard: its crossfade is before its bar."""
        return self.edges[section] - (self.over if section else 0)

    def compute_frames(self, section: int) -> tuple[int, int]:
        """Return the first frame in which a section is heard, and the frame after its last."""
        return self.compute_start(section) // self.hop, -(-self.edges[section + 1] // self.hop)


def build_grid(song: Song, pair: ModelWithCodec) -> Grid:
    """Build the grid of a song's sections."""
    rate, edges, bars = pair.codec.sample_rate, [0], 0
    for section in song.sections:
        bars += song.count_bars(section)
        edges.append(round(bars * song.bar_s * rate))
    hop = round(rate / pair.codec.frame_rate)
    return Grid(rate, hop, edges, round(song.crossfade_beats * song.beat_s * rate))


async def plan_song(
    context: Context,
    song: Song,
    choose_distribution: Callable[[ModelWithCodec], Distribution | None],
) -> WorkflowTask:
    """Plan a song; its model and codec decide whether the distribution is possible.

    Raises ApiError where it cannot be made.
    """
    check_song(song, context.limits)
    registry, effects_model = context.registry, None
    model = find_language_model(registry, context.model, "music")
    if song.effects:
        effects_model = find_language_model(registry, song.effects_model, "sound", "effects_model")
    # What is above asks no model, so that what it refuses wakes none.
    pair = await registry.get_model_with_codec(model)
    distribution, grid = choose_distribution(pair), build_grid(song, pair)
    sections = plan_sections(context, song, grid, pair)
    effects = list[PlannedClip]()
    if effects_model:
        sound = await registry.get_model_with_codec(effects_model)
        effects = _plan_effects(context, song, sound)
    return WorkflowTask(
        name="song",
        share=context.share,
        began=context.began,
        repeatable=context.repeatable,
        context=context,
        chains=[sections, *([effect] for effect in effects)],
        mix=lambda material: mix_song(song, grid, sections, effects, material),
        loudness=song.loudness,
        title="; ".join(section.params.text for section in sections),
        seconds=grid.edges[-1] / grid.rate,
        distribution=distribution,
    )


def check_song(song: Song, limits: Limits) -> None:
    """Check a song without asking a model. Raises ApiError 422."""
    check_clip_count(len(song.sections) + len(song.effects), limits, "sections")
    for number, section in enumerate(song.sections):
        check_text(section.prompt, limits, f"sections.{number}.prompt")
    for number, effect in enumerate(song.effects):
        check_text(effect.prompt, limits, f"effects.{number}.prompt")
    _check_sections(song, limits)
    _check_effects(song, limits)


def _check_sections(song: Song, limits: Limits) -> None:
    for number, section in enumerate(song.sections):
        field, seconds = f"sections.{number}", song.measure_seconds(section)
        check_seconds(seconds, limits.max_duration_s, "in whole bars it lasts ", field)
        if len(song.sections) > 1 and 2 * song.crossfade_beats * song.beat_s > seconds + 1e-9:
            beats = seconds / song.beat_s
            message = (
                f"{song.crossfade_beats:g} beats; {field} has {beats:g}; allowed: up to half of it"
            )
            raise ApiError(422, "invalid_value", f"crossfade_beats: {message}", "crossfade_beats")
    seconds = song.measure_seconds(*song.sections)
    check_seconds(seconds, limits.max_song_s, "the song lasts ", "sections")


def _check_effects(song: Song, limits: Limits) -> None:
    seconds = song.measure_seconds(*song.sections)
    for number, effect in enumerate(song.effects):
        field = f"effects.{number}"
        check_seconds(effect.duration, limits.max_duration_s, "", f"{field}.duration")
        if effect.at + effect.duration > seconds + 1e-9:
            ends = effect.at + effect.duration
            message = f"{field}: it ends at {ends:g} s, and the song at {seconds:g} s"
            raise ApiError(422, "invalid_value", f"{message}; begin it sooner", f"{field}.at")


def plan_sections(
    context: Context, song: Song, grid: Grid, pair: ModelWithCodec
) -> list[PlannedClip]:
    """Plan the sections' clips, each of which continues the one before it."""
    clips, before = list[PlannedClip](), 0
    for number, section in enumerate(song.sections):
        first, end = grid.compute_frames(number)
        key = f"in {song.key}" if song.key else None
        text = ", ".join(filter(None, (section.prompt, key, f"{song.tempo:g} bpm")))
        params = replace(context.drawn, text=text, frames=end - first, variation=number)
        overlap = before - first if number else None
        clips.append(PlannedClip(section.name, pair, params, overlap))
        before = end
    return clips


def _plan_effects(context: Context, song: Song, pair: ModelWithCodec) -> list[PlannedClip]:
    clips = []
    for number, effect in enumerate(song.effects):
        frames = count_frames(effect.duration, pair)
        params = replace(context.drawn, text=effect.prompt, frames=frames, variation=number)
        clips.append(PlannedClip(f"effect {number + 1}", pair, params))
    return clips


def mix_song(
    song: Song,
    grid: Grid,
    sections: list[PlannedClip],
    effects: list[PlannedClip],
    material: Material,
) -> Mix:
    """Fade the sections into each other, and add the effects."""
    stems, timing = list[Stem](), list[TimeSpan]()
    channels = sections[0].pair.codec.channels
    for number, clip in enumerate(sections):
        start, end = grid.compute_start(number), grid.edges[number + 1]
        skipped = start - grid.compute_frames(number)[0] * grid.hop
        samples = material.take_clip(clip).array()[:, skipped : skipped + end - start]
        last = number == len(sections) - 1
        samples = fade_ends(samples, grid.over if number else 0, 0 if last else grid.over)
        stems.append(Stem(clip.name, Placed(samples, start), clip))
        timing.append(TimeSpan(clip.name, grid.edges[number], end))
    parts = sum_blocks([stem.placed for stem in stems], grid.edges[-1])
    music = measure_block_loudness(parts, grid.rate)
    for clip, effect in zip(effects, song.effects, strict=True):
        start = round(effect.at * grid.rate)
        room = min(round(effect.duration * grid.rate), grid.edges[-1] - start)
        samples = fade_edges(
            cut_clip(material.take_clip(clip), grid.rate, channels, room), grid.rate
        )
        if music is not None:
            samples = match_loudness(samples, grid.rate, music)
        samples = apply_gain(samples, db_to_factor(effect.gain_db))
        stems.append(Stem(clip.name, Placed(samples, start), clip))
    return Mix(grid.rate, grid.edges[-1], stems, timing)
