"""Audio files in memory."""

import io

import soundfile

from engine.params import Waveform


def encode_wav(audio: Waveform) -> bytes:
    """Return a 16-bit PCM WAV file; samples beyond full scale are clipped, none are scaled."""
    file = io.BytesIO()
    soundfile.write(file, audio.array().T, audio.sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
