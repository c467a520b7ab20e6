"""Measures how often generated clips match their prompts, and whether their levels are sane.

Prompts are captions of held-out clips. A clip is silent below -50 dBFS, clipped where more than one
sample in a thousand is at full scale, and runs away where its last second is at -12 dBFS or above
and four times as loud as its median second. Its loudness is compared with that of the render.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.figures import Row, mean_and_interval, show
from benchmarks.quality.judges import Audio, Judge, extract_rhythm, extract_timbre
from bundles.tiny import generate
from bundles.tiny.data import captions, effects, music
from bundles.tiny.data.store import SECONDS, Clips, clips
from bundles.tiny.train.language import CLIPS
from engine.codec import Codec
from engine.params import GenerationParams
from graph.workflows.levels import SILENT_LUFS, measure_loudness

JUDGE_CLIPS = 1200
SCALES = (3.0, 0.0)
SECOND = 16000
NEAR_LU = 3.0
"""A clip whose loudness is as near as this to its render's has the right level."""


def label_clips(kind: str, rendered: Clips) -> dict[str, list[str]]:
    """Return the true labels of each clip, by property."""
    if kind == "sound":
        return {"effect": [effects.draw_effect(number).kind for number in rendered.numbers]}
    pieces = [music.draw_piece(number) for number in rendered.numbers]
    return {"instrument": [p.family for p in pieces], "tempo": [p.tempo for p in pieces]}


FEATURES = {"instrument": extract_timbre, "tempo": extract_rhythm, "effect": extract_timbre}


def to_floats(rendered: Clips) -> list[Audio]:
    """Convert clips to float32, full scale ±1."""
    return [clip.astype(np.float32) / 32768 for clip in rendered.audio]


def copy_clips(codec: Codec, audio: list[Audio]) -> list[Audio]:
    """Return each clip encoded and decoded by the codec."""
    return [generate.copied(codec, clip) for clip in audio]


def fit_judges(kind: str, work: Path, codec: Codec) -> dict[str, Judge]:
    """Fit the judges of a kind on separate renders, half of them after the codec."""
    rendered = clips(work, kind, JUDGE_CLIPS, after=CLIPS[kind])
    audio = to_floats(rendered)
    audio[::2] = copy_clips(codec, audio[::2])
    known = label_clips(kind, rendered)
    return {what: Judge.fit(FEATURES[what], audio, known[what]) for what in known}


def draw_prompt(kind: str, number: int) -> str:
    """Draw a caption that names every judged property of a clip."""
    draw = np.random.default_rng([43, number])
    if kind == "sound":
        return captions.describe_effect(effects.draw_effect(number), draw)
    piece = music.draw_piece(number)
    named = (captions.INSTRUMENTS[piece.family], captions.TEMPO_WORDS[piece.tempo])
    while True:
        caption = captions.describe_music(piece, draw)
        if all(any(word in caption for word in words) for words in named):
            return caption


def generate_clips(
    kind: str, bundle: Path, codec: Codec, rendered: Clips, scale: float
) -> NDArray[np.float32]:
    """Generate a clip from the prompt of each rendered clip; return [clips, samples]."""
    frames = int(SECONDS * generate.FRAME_RATE)
    wanted = [
        GenerationParams(draw_prompt(kind, number), frames, seed=number, guidance_scale=scale)
        for number in rendered.numbers
    ]
    model = generate.load_model(kind, bundle)
    audio = generate.decode_codes(codec, generate.generate_codes(model, wanted))
    model.loop.close()
    return audio


def find_faults(audio: Audio) -> dict[str, float]:
    """Return 1 for each level fault that a clip has, and 0 for the others."""
    seconds = np.sqrt((audio[: len(audio) // SECOND * SECOND].reshape(-1, SECOND) ** 2).mean(1))
    loud = seconds[-1] > 0.25 and seconds[-1] > 4 * np.median(seconds)
    return {
        "silent": float(np.sqrt((audio**2).mean()) < 10 ** (-50 / 20)),
        "clipped": float((np.abs(audio) >= 0.999).mean() > 0.001),
        "runs away": float(loud),
    }


def compare_loudness(made: Sequence[Audio], real: Sequence[Audio]) -> list[float]:
    """Return how many LU each generated clip is louder than the render of its caption.

    A clip that is too quiet to have a loudness counts as just above silence.
    """

    def measure_one(clip: Audio) -> float:
        measured = measure_loudness(clip[None], SECOND)
        return SILENT_LUFS if measured is None else measured

    return [measure_one(one) - measure_one(of) for one, of in zip(made, real, strict=True)]


def measure_levels(kind: str, made: Sequence[Audio], real: Sequence[Audio]) -> list[Row]:
    """Return the share of generated clips with each level fault, and their loudness."""
    found = [find_faults(clip) for clip in made]
    values = {fault: [one[fault] for one in found] for fault in found[0]}
    louder = compare_loudness(made, real)
    values["LU louder than the render"] = louder
    values[f"within {NEAR_LU:g} LU of the render"] = [float(abs(by) <= NEAR_LU) for by in louder]
    return [
        show({"what": what, "kind": kind} | mean_and_interval(of)) for what, of in values.items()
    ]


def measure(kind: str, work: Path, bundle: Path, rendered: Clips) -> list[Row]:
    """Return the share of renders, and of generated clips, in which the judges hear the label."""
    codec = Codec.load(str(bundle / "codec"), device="cpu")
    fitted, known, rows = fit_judges(kind, work, codec), label_clips(kind, rendered), []
    real = to_floats(rendered)
    sources: dict[str, list[Audio]] = {"renders": real, "copied renders": copy_clips(codec, real)}
    for scale in SCALES:
        made = generate_clips(kind, bundle, codec, rendered, scale)
        sources[f"generated, guidance {scale:g}"] = list(made)
        if scale == SCALES[0]:
            rows += measure_levels(kind, list(made), real)
    for what, judge in fitted.items():
        for name, audio in sources.items():
            right = judge.find_correct(audio, known[what])
            rows.append(show({"what": what, "of": name} | mean_and_interval(right)))
    return rows
