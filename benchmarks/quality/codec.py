"""How close the codec's copies come to held-out clips, beside Opus and an untrained codec.

Opus has 12 kbit/s (wideband); this codec has 1.8. The distance is AudioCraft's multi-resolution
mel loss, in single units of its logarithm and magnitude.
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
from bundles.tiny.data.store import Clips
from bundles.tiny.generate import copied
from bundles.tiny.recipe import SAMPLE_RATE, codec_config, fill_codebooks
from bundles.tiny.train.codec import FILTERS
from engine.codec import Codec

OPUS_BITS_PER_SECOND = 12000
Audio = NDArray[np.float32]


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


def measure(bundle: Path, sets: dict[str, Clips]) -> list[Row]:
    """Return a row for each kind of clip and each way there and back."""
    torch.manual_seed(0)
    untrained = builders.get_compression_model(codec_config(FILTERS)).eval()
    fill_codebooks(untrained)
    trained = Codec.load(str(bundle / "codec"), device="cpu")
    ways: dict[str, Callable[[Audio], Audio]] = {
        "bundle": partial(copied, trained),
        "opus": by_opus,
        "untrained": partial(copied, Codec(untrained)),
    }
    distance = MultiScaleMelSpectrogramLoss(SAMPLE_RATE, f_min=50, normalized=True, alphas=False)
    rows: list[Row] = []
    for kind, rendered in sets.items():
        originals = [(clip / 32768).astype(np.float32) for clip in rendered.audio]
        means: dict[str, float] = {}
        for name, way in ways.items():
            pairs = [(torch.from_numpy(way(x))[None, None], torch.from_numpy(x)) for x in originals]
            values = [float(distance(made, x[None, None])) for made, x in pairs]
            means[name] = float(np.mean(values))
            what = {"what": "mel distance", "kind": kind, "by": name}
            rows.append(show(what | mean_and_interval(values)))
        ratio = round(means["bundle"] / means["opus"], 2)
        rows.append(show({"what": "mel distance, bundle / opus", "kind": kind, "mean": ratio}))
    return rows
