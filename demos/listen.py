"""Shows a clip in a notebook: a player, its waveform and its spectrogram."""

import io

import matplotlib.pyplot as plt
import numpy as np
import soundfile
from IPython.display import Audio, display


def show_clip(file: bytes, title: str) -> None:
    """Show an audio file (wav, flac, mp3 or ogg)."""
    samples, rate = soundfile.read(io.BytesIO(file), always_2d=True)
    mono = samples.mean(axis=1)
    figure, (waveform, spectrogram) = plt.subplots(2, 1, figsize=(10, 3), sharex=True)
    waveform.plot(np.arange(len(mono)) / rate, mono, linewidth=0.4)
    waveform.set(title=title, ylim=(-1, 1))
    spectrogram.specgram(mono + 1e-9 * np.random.default_rng(0).standard_normal(len(mono)), Fs=rate)
    spectrogram.set(xlabel="s", ylabel="Hz")
    plt.show()
    plt.close(figure)
    display(Audio(samples.T, rate=rate))
