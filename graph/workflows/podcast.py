"""Plans and mixes podcasts: intro, transitions, outro, and a bed that is ducked under a voice."""

from dataclasses import dataclass, replace

import numpy as np

from deployments.settings import TokenModelSettings
from graph.registry import ModelWithCodec, count_frames, find_language_model
from graph.settings import Limits, check_clip_count, check_seconds, check_text
from graph.tasks.task import Upload
from graph.workflows.levels import Samples, db_to_factor
from graph.workflows.mix import Material, Mix, Stem, TimeSpan
from graph.workflows.mixing import (
    Placed,
    apply_gain,
    close_loop,
    compute_ducking,
    cut_clip,
    fade_edges,
    fade_ends,
    match_loudness,
    repeat_loop,
)
from graph.workflows.planned_clip import PlannedClip
from graph.workflows.task import Context, WorkflowTask

VOICE = "voice"
"""The field of the file with the speech."""
PASSAGE_S = 2.0
"""Seconds of the bed's fade in over the intro, and of its fade out over the outro."""
BED_S, BED_FADE_S = 20.0, 1.0
"""Seconds of the longest bed, and of its end that is faded into its beginning."""
TRANSITION_S, GAP_S, CLOSE_S = 2.0, 0.5, 1.0
"""Seconds of a transition, of the silence beside it without a voice, and of the last fade."""
INTRO_S, OUTRO_S = 15.0, 10.0
"""Seconds of the intro and of the outro by default."""
TRANSITIONS = (
    "smooth transition sound",
    "chime",
    "whoosh",
    "minimal tone",
    "section divider sound",
)


@dataclass(frozen=True)
class Podcast:
    """The parameters of a podcast, except the file with the speech."""

    theme: str
    intro: float | None
    """Seconds; None means `INTRO_S`, or the longest that the server allows."""
    outro: float | None
    transitions: int
    """The number of transitions, from 0 to 5."""
    effects_model: str | None
    bed_gain_db: float
    loudness: float


@dataclass(frozen=True)
class Lengths:
    """The lengths of a podcast's parts in seconds."""

    intro_s: float
    outro_s: float
    transition_s: float
    transitions: int
    speech_s: float | None
    """The length of the speech; None where there is no speech."""

    @property
    def seconds(self) -> float:
        """The length of the mix."""
        between = self.speech_s
        if between is None:
            between = GAP_S + self.transitions * (self.transition_s + GAP_S)
        return self.intro_s + between + self.outro_s


@dataclass(frozen=True)
class PodcastPlan:
    """The clips of a podcast."""

    podcast: Podcast
    lengths: Lengths
    intro: PlannedClip
    outro: PlannedClip
    transitions: list[PlannedClip]
    bed: PlannedClip | None

    @property
    def clips(self) -> list[PlannedClip]:
        """All clips of the podcast."""
        bed = [self.bed] if self.bed else []
        return [self.intro, *bed, self.outro, *self.transitions]

    @property
    def rate(self) -> int:
        """The sample rate of the mix, in Hz."""
        return self.intro.pair.codec.sample_rate

    def mix_clips(self, material: Material) -> Mix:
        """Mix the clips around the voice, or one after the other where there is no voice."""
        if material.speech is None:
            return self._mix_in_a_row(material)
        return self._mix_around_voice(material, material.speech.array())

    def _cut_music(self, material: Material, clip: PlannedClip, seconds: float) -> Samples:
        """Return the first seconds of a clip, at the loudness of the podcast."""
        channels, samples = self.intro.pair.codec.channels, round(seconds * self.rate)
        return match_loudness(
            cut_clip(material.take_clip(clip), self.rate, channels, samples),
            self.rate,
            self.podcast.loudness,
        )

    def _cut_transitions(self, material: Material) -> list[Samples]:
        return [
            fade_edges(self._cut_music(material, clip, self.lengths.transition_s), self.rate)
            for clip in self.transitions
        ]

    def _mix_around_voice(self, material: Material, speech: Samples) -> Mix:
        assert self.bed
        rate, spoken = self.rate, match_loudness(speech, self.rate, self.podcast.loudness)
        intro = self._cut_music(material, self.intro, self.lengths.intro_s)
        outro = self._cut_music(material, self.outro, self.lengths.outro_s)
        over = min(round(PASSAGE_S * rate), intro.shape[1] // 2, outro.shape[1] // 2)
        begins, ends = intro.shape[1], intro.shape[1] + spoken.shape[1]
        around = np.pad(spoken, ((0, 0), (over, over)))
        gain = compute_ducking(around, rate) * db_to_factor(self.podcast.bed_gain_db)
        bed = apply_gain(fade_ends(self._build_bed(material, around.shape[1]), over, over), gain)
        close = min(round(CLOSE_S * rate), outro.shape[1] - over)
        stems = [
            Stem("intro", Placed(fade_ends(intro, 0, over), 0), self.intro),
            Stem("bed", Placed(bed, begins - over), self.bed),
            Stem("voice", Placed(spoken, begins), None),
            Stem("outro", Placed(fade_ends(outro, over, close), ends), self.outro),
        ]
        unplaced = zip(self.transitions, self._cut_transitions(material), strict=True)
        stems += [Stem(clip.name, Placed(samples), clip) for clip, samples in unplaced]
        total = ends + outro.shape[1]
        timing = [
            TimeSpan("intro", 0, begins),
            TimeSpan("voice", begins, ends),
            TimeSpan("outro", ends, total),
        ]
        return Mix(rate, total, stems, timing)

    def _build_bed(self, material: Material, samples: int) -> Samples:
        """Return the bed as `samples` samples of a repeated loop."""
        assert self.bed
        seconds = self.bed.params.frames / self.bed.pair.codec.frame_rate
        clip = self._cut_music(material, self.bed, seconds)
        fade = min(round(BED_FADE_S * self.rate), clip.shape[1] // 2)
        return repeat_loop(close_loop(clip, clip.shape[1] - fade), samples)

    def _mix_in_a_row(self, material: Material) -> Mix:
        rate, gap, close = self.rate, round(GAP_S * self.rate), round(CLOSE_S * self.rate)
        music = [self._cut_music(material, self.intro, self.lengths.intro_s)]
        music += [self._cut_music(material, self.outro, self.lengths.outro_s)]
        first, last = (fade_ends(one, 0, min(close, one.shape[1])) for one in music)
        clips = [self.intro, *self.transitions, self.outro]
        stems, timing, at = list[Stem](), list[TimeSpan](), 0
        for clip, samples in zip(
            clips, [first, *self._cut_transitions(material), last], strict=True
        ):
            stems.append(Stem(clip.name, Placed(samples, at), clip))
            timing.append(TimeSpan(clip.name, at, at + samples.shape[1]))
            at += samples.shape[1] + gap
        return Mix(rate, at - gap, stems, timing)


async def plan_podcast(context: Context, podcast: Podcast, speech: Upload | None) -> WorkflowTask:
    """Plan a podcast, with or without a voice. Raises ApiError where it cannot be made."""
    limits, registry = context.limits, context.registry
    lengths = _choose_lengths(podcast, speech, limits)
    model, effects_model = find_language_model(registry, context.model, "music"), None
    if podcast.transitions:
        name, field = podcast.effects_model, "effects_model"
        effects_model = find_language_model(registry, name, "sound", field)
    # What is above asks no model, so that what it refuses wakes none.
    music = await registry.get_model_with_codec(model)
    planned = PodcastPlan(
        podcast=podcast,
        lengths=lengths,
        intro=_plan_clip(
            context, "intro", "podcast intro music", lengths.intro_s, music, podcast, 0
        ),
        outro=_plan_clip(
            context, "outro", "podcast outro music", lengths.outro_s, music, podcast, 1
        ),
        transitions=await _plan_transitions(context, effects_model, lengths),
        bed=_plan_bed(context, podcast, speech, music) if speech else None,
    )
    return WorkflowTask(
        name="podcast",
        share=context.share,
        began=context.began,
        repeatable=context.repeatable,
        context=context,
        chains=[[clip] for clip in planned.clips],
        mix=planned.mix_clips,
        loudness=podcast.loudness,
        title=podcast.theme,
        seconds=lengths.seconds,
        speech=speech,
    )


def _choose_lengths(podcast: Podcast, speech: Upload | None, limits: Limits) -> Lengths:
    """Return the lengths of the parts. Raises ApiError 422 where the limits forbid them."""
    intro_s, outro_s = (
        _choose_seconds(seconds, default, name, limits)
        for name, seconds, default in (
            ("intro", podcast.intro, INTRO_S),
            ("outro", podcast.outro, OUTRO_S),
        )
    )
    check_text(podcast.theme, limits, "theme")
    check_clip_count(2 + podcast.transitions + (speech is not None), limits, "transitions")
    transition_s = min(TRANSITION_S, limits.max_duration_s)
    speech_s = speech.info.seconds if speech else None
    lengths = Lengths(intro_s, outro_s, transition_s, podcast.transitions, speech_s)
    field = VOICE if speech else "transitions"
    check_seconds(lengths.seconds, limits.max_song_s, "with intro and outro it lasts ", field)
    return lengths


def _choose_seconds(seconds: float | None, default: float, name: str, limits: Limits) -> float:
    """Return the seconds of the intro or outro. Raises ApiError 422 where they are not allowed."""
    chosen = min(default, limits.max_duration_s) if seconds is None else seconds
    check_seconds(chosen, limits.max_duration_s, "", name)
    return chosen


def _plan_clip(
    context: Context,
    name: str,
    words: str,
    seconds: float,
    pair: ModelWithCodec,
    podcast: Podcast,
    variation: int,
) -> PlannedClip:
    """Plan a clip of music for the theme."""
    text, frames = f"{podcast.theme}, {words}", count_frames(seconds, pair)
    params = replace(context.drawn, text=text, frames=frames, variation=variation)
    return PlannedClip(name, pair, params)


def _plan_bed(
    context: Context, podcast: Podcast, speech: Upload, pair: ModelWithCodec
) -> PlannedClip:
    needed = speech.info.seconds + 2 * PASSAGE_S + BED_FADE_S
    seconds = min(needed, BED_S + BED_FADE_S, context.limits.max_duration_s)
    return _plan_clip(context, "bed", "calm background music", seconds, pair, podcast, 2)


async def _plan_transitions(
    context: Context, model: TokenModelSettings | None, lengths: Lengths
) -> list[PlannedClip]:
    if model is None:
        return []
    pair = await context.registry.get_model_with_codec(model)
    frames = count_frames(lengths.transition_s, pair)
    return [
        PlannedClip(
            f"transition {number + 1}",
            pair,
            replace(context.drawn, text=text, frames=frames, variation=number),
        )
        for number, text in enumerate(TRANSITIONS[: lengths.transitions])
    ]
