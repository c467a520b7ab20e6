"""Builds the file of a clip: level, edges, encoding and signature."""

import time
from collections.abc import Iterator

import numpy as np

from api.audio.credentials import Signer
from api.audio.encoder import Audio, Encoder, encode_parts
from api.audio.output import Normalize, Output
from api.audio.tags import Tags
from deployments.tracing import add_span, open_span
from engine.params import Waveform
from graph.workflows.levels import (
    PEAK_DB,
    Samples,
    db_to_factor,
    measure_loudness,
    measure_true_peak,
)

RMS_DB, LOUDNESS_DB = -18.0, -14.0
"""The levels that AudioCraft's `audio_write` sets: root mean square in dB, loudness in LUFS."""
SILENCE = 10 ** (-50 / 20)


def finish_clip(samples: Samples, rate: int, output: Output) -> Samples:
    """Trim, fade and normalise the samples [channels, samples] of a whole clip; `rate` in Hz."""
    if output.trim_silence:
        samples = trim_silence(samples)
    samples = fade_edges(samples, 0, samples.shape[1], rate, output)
    return normalize_level(samples, rate, output.normalize)


def trim_silence(samples: Samples) -> Samples:
    """Remove samples below -50 dBFS at both ends; a clip that is completely silent is kept."""
    heard = np.flatnonzero(np.abs(samples).max(axis=0) > SILENCE)
    return samples[:, heard[0] : heard[-1] + 1] if heard.size else samples


def fade_edges(samples: Samples, at: int, total: int, rate: int, output: Output) -> Samples:
    """Apply linear fades to the part that begins at sample `at` of a clip of `total` samples."""
    if not (output.fade_in or output.fade_out):
        return samples
    place = np.arange(at, at + samples.shape[1])
    gain = np.ones(len(place))
    if output.fade_in:
        gain = np.minimum(gain, place / (output.fade_in * rate))
    if output.fade_out:
        gain = np.minimum(gain, (total - 1 - place) / (output.fade_out * rate))
    faded: Samples = (samples * gain).astype(np.float32)
    return faded


def normalize_level(samples: Samples, rate: int, how: Normalize) -> Samples:
    """Set a clip's level as AudioCraft's `normalize_audio` does, with its default headrooms.

    If the loudness would raise the true peak above -1 dB, the gain is lowered instead of clipping.
    Silence, and clips that are too short to have a loudness, are not changed.
    """
    if how == "clip":
        return samples.clip(-db_to_factor(PEAK_DB), db_to_factor(PEAK_DB))
    if how == "none" or not samples.any():
        return samples
    if how == "peak":
        gain = db_to_factor(PEAK_DB) / np.abs(samples).max()
    elif how == "rms":
        gain = db_to_factor(RMS_DB) / np.sqrt((samples.mean(axis=0) ** 2).mean())
    else:
        gain = compute_loudness_gain(samples, rate, LOUDNESS_DB)
    leveled: Samples = (samples * gain).astype(np.float32)
    return leveled.clip(-1, 1)


def compute_loudness_gain(samples: Samples, rate: int, target: float) -> float:
    """Return the gain factor to a target loudness in LUFS; the true peak stays below -1 dB.

    The factor is 1 if the clip has no loudness.
    """
    measured = measure_loudness(samples, rate)
    if measured is None:
        return 1.0
    return min(db_to_factor(target - measured), db_to_factor(PEAK_DB) / measure_true_peak(samples))


def measure_seconds(audio: Waveform, output: Output) -> float:
    """Return the length of the file of a whole clip, from which silence may be trimmed."""
    if not output.trim_silence:
        return audio.seconds
    samples: int = trim_silence(audio.array()).shape[1]
    return samples / audio.sample_rate


def build_file(
    audio: Audio, output: Output, tags: Tags | None, signer: Signer | None
) -> Iterator[bytes]:
    """Yield the parts of a file; sign its tags if the format can hold a signature.

    A signed file is one part. Raises ApiError 503 if the file cannot be signed now.
    """
    began = time.perf_counter()
    parts = encode_parts(audio, output, tags)
    signs = signer and tags and signer.supports(output)
    whole = b"".join(parts) if signs else b""
    yield from parts
    add_span(f"encode {output.format}", began, time.perf_counter())
    if whole:
        assert signer
        assert tags
        with open_span(f"sign {output.format}"):
            signed = signer.sign_file(whole, output, tags)
        yield signed


class GrowingFile:
    """Builds the file of a clip of `samples` samples while the clip is generated."""

    def __init__(
        self, output: Output, rate: int, channels: int, samples: int, tags: Tags | None
    ) -> None:
        assert not output.whole_clip_for
        self._output, self._rate, self._samples = output, rate, samples
        self._encoder = Encoder(output, rate, channels, samples, tags, streamed=True)
        self._at = 0

    def add_samples(self, audio: Waveform) -> bytes:
        """Encode the next samples; return the bytes that are ready."""
        with open_span(f"encode {self._output.format}"):
            faded = fade_edges(audio.array(), self._at, self._samples, self._rate, self._output)
            self._at += audio.samples
            level = normalize_level(faded, self._rate, self._output.normalize)
            return self._encoder.add_samples(level)

    def finish(self) -> bytes:
        """Finish the file; return the remaining bytes."""
        with open_span(f"encode {self._output.format}"):
            return self._encoder.finish()
