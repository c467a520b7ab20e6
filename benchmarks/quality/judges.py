"""Classifies the instrument, tempo or sound effect of a clip.

Each judge is a logistic regression on a few simple features, fitted on renders that no model was
trained on. Half of them were encoded and decoded by the codec, so that its artefacts are not taken
for properties of an instrument.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import librosa
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SAMPLE_RATE = 16000
HOP = 160
MELS = 64
LONGEST_LAG = 300
"""Longest lag of the onsets' autocorrelation in hops: 3 s, about a bar at the slowest tempo."""
Audio = NDArray[np.float32]
Features = NDArray[np.float32]


def extract_timbre(audio: Audio) -> Features:
    """Return level, spread and change of each mel band in dB, independent of loudness."""
    power = librosa.feature.melspectrogram(
        y=audio, sr=SAMPLE_RATE, n_fft=1024, hop_length=HOP, n_mels=MELS
    )
    level = librosa.power_to_db(power, ref=np.max, top_db=80.0)
    spread = np.percentile(level, [10, 50, 90], axis=1)
    change = np.abs(np.diff(level, axis=1))
    parts = [level.mean(1), level.std(1), *spread, change.mean(1), change.std(1)]
    return np.concatenate(parts).astype(np.float32)


def extract_rhythm(audio: Audio) -> Features:
    """Return the autocorrelation of the onset strength by lag, the mean of a tempogram."""
    onsets = librosa.onset.onset_strength(
        y=audio, sr=SAMPLE_RATE, hop_length=HOP, n_fft=1024, n_mels=MELS
    )
    again = librosa.autocorrelate(onsets - onsets.mean(), max_size=LONGEST_LAG)
    return np.asarray(again[1:] / max(again[0], 1e-9), np.float32)


@dataclass(frozen=True)
class Judge:
    """A fitted classifier of clips."""

    features: Callable[[Audio], Features]
    model: LogisticRegression

    @classmethod
    def fit(
        cls, features: Callable[[Audio], Features], audio: Sequence[Audio], labels: Sequence[str]
    ) -> "Judge":
        """Fit a classifier to clips with known labels."""
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=3000))
        return cls(features, model.fit(np.stack([features(clip) for clip in audio]), labels))

    def find_correct(self, audio: Sequence[Audio], labels: Sequence[str]) -> list[float]:
        """Return 1 for each clip that is classified as its label, and 0 for the others."""
        heard = self.model.predict(np.stack([self.features(clip) for clip in audio]))
        return [float(one == label) for one, label in zip(heard, labels, strict=True)]
