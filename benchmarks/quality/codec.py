"""How close the codec's copies come to held-out clips, beside Opus and an untrained codec.

Opus has 12 kbit/s (wideband); this codec has 1.8. The distance is AudioCraft's multi-resolution
mel loss, in single units of its logarithm and magnitude. Lines are what `quality.lines` measures,
in held-out clips and in noise, a chord and rain.
"""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from audiocraft.losses import MultiScaleMelSpectrogramLoss
from audiocraft.models import builders
from numpy.typing import NDArray

from benchmarks.quality.figures import Row, mean_and_interval, show
from benchmarks.quality.lines import make_signals, measure_many
from bundles.tiny.data.store import Clips
from bundles.tiny.generate import copied
from bundles.tiny.recipe import SAMPLE_RATE, codec_config, fill_codebooks
from bundles.tiny.train.codec import FILTERS
from engine.codec import Codec

OPUS_BITS_PER_SECOND = 12000
SIGNALS, SIGNAL_SECONDS = 4, 10.0
Audio = NDArray[np.float32]
Way = Callable[[Audio], Audio]


def by_opus(audio: Audio) -> Audio:
    """Encode and decode samples by libopus, aligned with what went in."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = OPUS_BITS_PER_SECOND
        samples = np.round(audio * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    file.seek(0)
    with av.open(file, "r") as encoded:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        frames = [f for frame in encoded.decode(audio=0) for f in resampler.resample(frame)]
        frames += resampler.resample(None)
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return aligned(decoded, audio)


def aligned(decoded: Audio, original: Audio) -> Audio:
    """Shift by the lag of the greatest correlation, and cut or fill to the original's length."""
    size = 2 * len(original)
    spectrum = np.fft.rfft(decoded[: len(original)], size).conj() * np.fft.rfft(original, size)
    lag = int(np.argmax(np.fft.irfft(spectrum)))
    lag = lag - size if lag > size // 2 else lag
    shifted = np.zeros(len(original), np.float32)
    source = decoded[-lag:] if lag < 0 else decoded
    start = max(lag, 0)
    length = min(len(source), len(original) - start)
    shifted[start : start + length] = source[:length]
    return shifted


def load_ways(bundle: Path) -> tuple[dict[str, Way], float]:
    """Return each way there and back, by name, and the frame rate of the bundle's codec."""
    torch.manual_seed(0)
    untrained = builders.get_compression_model(codec_config(FILTERS)).eval()
    fill_codebooks(untrained)
    trained = Codec.load(str(bundle / "codec"), device="cpu")
    ways: dict[str, Way] = {
        "bundle": partial(copied, trained),
        "opus": by_opus,
        "untrained": partial(copied, Codec(untrained)),
    }
    return ways, trained.info.frame_rate


def measure_distances(
    kind: str, originals: list[Audio], copies: dict[str, list[Audio]]
) -> list[Row]:
    """Return the mel distance of each way's copies, and the bundle's over Opus's."""
    distance = MultiScaleMelSpectrogramLoss(SAMPLE_RATE, f_min=50, normalized=True, alphas=False)
    rows: list[Row] = []
    means: dict[str, float] = {}
    for name, made in copies.items():
        pairs = [
            (torch.from_numpy(of)[None, None] for of in pair)
            for pair in zip(made, originals, strict=True)
        ]
        values = [float(distance(*pair)) for pair in pairs]
        means[name] = float(np.mean(values))
        what = {"what": "mel distance", "kind": kind, "by": name}
        rows.append(show(what | mean_and_interval(values)))
    ratio = round(means["bundle"] / means["opus"], 2)
    rows.append(show({"what": "mel distance, bundle / opus", "kind": kind, "mean": ratio}))
    return rows


def measure_lines_of(
    kind: str, originals: list[Audio], copies: dict[str, list[Audio]], frame_rate: float
) -> list[Row]:
    """Return how far lines stand out of the originals and of each way's copies, in dB."""
    rows: list[Row] = []
    for name, audio in ({"original": originals} | copies).items():
        what: Row = {"what": "lines, dB", "kind": kind, "by": name}
        rows.append(show(what | measure_many(audio, frame_rate)))
    return rows


@torch.inference_mode()
def measure(bundle: Path, sets: dict[str, Clips]) -> list[Row]:
    """Return a row for each measure, kind of clip, and way there and back."""
    ways, frame_rate = load_ways(bundle)
    rows: list[Row] = []
    for kind, rendered in sets.items():
        originals = [(clip / 32768).astype(np.float32) for clip in rendered.audio]
        copies = {name: [way(clip) for clip in originals] for name, way in ways.items()}
        rows += measure_distances(kind, originals, copies)
        rows += measure_lines_of(kind, originals, copies, frame_rate)
    for kind, originals in make_signals(SIGNALS, SIGNAL_SECONDS).items():
        copies = {name: [way(clip) for clip in originals] for name, way in ways.items()}
        rows += measure_lines_of(kind, originals, copies, frame_rate)
    return rows
