"""Measures whether the melody model follows the given melody.

The figure is the share of moments of held-out pieces at which the strongest pitch class of the
generated clip is that of the melody. The share for the melody of another piece shows chance level.
"""

from pathlib import Path

import librosa
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.figures import Row, mean_and_interval, show
from benchmarks.quality.generation import draw_prompt, to_floats
from benchmarks.quality.judges import SAMPLE_RATE, Audio
from bundles.tiny import generate
from bundles.tiny.data.store import SECONDS, Clips
from engine.codec import Codec
from engine.params import GenerationParams, Waveform


def find_pitch_classes(audio: Audio) -> NDArray[np.intp]:
    """Return the strongest pitch class, 0 to 11, of each moment."""
    chroma = librosa.feature.chroma_stft(y=audio, sr=SAMPLE_RATE, n_fft=8192, hop_length=2048)
    return np.asarray(chroma.argmax(axis=0))


def measure(bundle: Path, rendered: Clips) -> list[Row]:
    """Return the shares for the melodies after the codec, and for the generated clips."""
    codec = Codec.load(str(bundle / "codec"), device="cpu")
    melodies = to_floats(rendered)
    wanted = [
        GenerationParams(
            draw_prompt("music", number),
            int(SECONDS * generate.FRAME_RATE),
            seed=number,
            melody=Waveform.pack(melody[None], SAMPLE_RATE),
        )
        for number, melody in zip(rendered.numbers, melodies, strict=True)
    ]
    model = generate.load_model("melody", bundle)
    made = generate.decode_codes(codec, generate.generate_codes(model, wanted))
    model.loop.close()
    asked = [find_pitch_classes(melody) for melody in melodies]
    heard = [find_pitch_classes(clip) for clip in made]
    copied = [find_pitch_classes(generate.copied(codec, melody)) for melody in melodies]
    rows = []
    for name, one, other in (
        ("after the codec alone", copied, asked),
        ("generated, guidance 3", heard, asked),
        ("generated, against another piece's", heard, asked[1:] + asked[:1]),
    ):
        shares = [float((a == b).mean()) for a, b in zip(one, other, strict=True)]
        rows.append(show({"what": "pitch class", "of": name} | mean_and_interval(shares)))
    return rows
