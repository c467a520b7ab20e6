"""How good the embedded models are, on what was never trained on.

`python -m benchmarks.bundle_quality codec` encodes and decodes held-out music and sound effects by
the bundle's codec, by an untrained codec of its shape, and by Opus at 12 kbit/s (wideband), and
states each one's multi-resolution mel distance to the original (mean, and its 95 % interval by
bootstrap over clips). It prints a table, then one line of JSON.
"""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from audiocraft.losses import MultiScaleMelSpectrogramLoss
from audiocraft.models import builders
from audiocraft.models.encodec import CompressionModel
from numpy.typing import NDArray

from bundles.tiny.data.store import Clips, clips
from bundles.tiny.recipe import SAMPLE_RATE, codec_config, fill_codebooks
from bundles.tiny.train.codec import FILTERS
from engine.checkpoints import load_codec

OPUS_BITS_PER_SECOND = 12000
Audio = NDArray[np.float32]


def by_codec(codec: CompressionModel) -> Callable[[Audio], Audio]:
    """Return what encodes and decodes samples by a codec."""

    @torch.inference_mode()
    def again(audio: Audio) -> Audio:
        codes, _ = codec.encode(torch.from_numpy(audio)[None, None])
        decoded: Audio = codec.decode(codes)[0, 0, : len(audio)].numpy()
        return decoded

    return again


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


def mean_and_interval(values: list[float]) -> dict[str, float]:
    """Return a mean and its 95 % interval over resamples of the clips."""
    draw = np.random.default_rng(0)
    means = draw.choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "mean": round(float(np.mean(values)), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def codec_quality(codec: CompressionModel, sets: dict[str, Clips]) -> list[dict[str, object]]:
    """Return a row for each kind of clip and each way there and back."""
    torch.manual_seed(0)
    untrained = builders.get_compression_model(codec_config(FILTERS)).eval()
    fill_codebooks(untrained)
    ways = {"bundle": by_codec(codec), "opus": by_opus, "untrained": by_codec(untrained)}
    distance = MultiScaleMelSpectrogramLoss(SAMPLE_RATE, f_min=50, normalized=True, alphas=False)
    rows: list[dict[str, object]] = []
    for kind, rendered in sets.items():
        originals = [(clip / 32768).astype(np.float32) for clip in rendered.audio]
        means = {}
        for name, way in ways.items():
            pairs = [(torch.from_numpy(way(x))[None, None], torch.from_numpy(x)) for x in originals]
            values = [float(distance(made, x[None, None])) for made, x in pairs]
            row = {"kind": kind, "by": name, "clips": len(values), **mean_and_interval(values)}
            means[name] = float(np.mean(values))

            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            rows.append(row)
        print(f"{kind}: bundle / opus = {means['bundle'] / means['opus']:.2f}", flush=True)
    return rows


def main() -> None:
    """Measure one part of the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["codec"])
    parser.add_argument("--clips", type=int, default=100, help="of each kind")
    parser.add_argument("--checkpoint", default="bundle:tiny/codec")
    parser.add_argument("--work", type=Path, default=Path("build/tiny"))
    options = parser.parse_args()
    codec = load_codec(options.checkpoint, device="cpu")
    sets = {
        kind: clips(options.work, kind, options.clips, held_out=True) for kind in ("music", "sound")
    }
    print(json.dumps({"part": options.part, "rows": codec_quality(codec, sets)}))


if __name__ == "__main__":
    main()
