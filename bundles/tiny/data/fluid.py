"""Renders composed pieces with fluidsynth.

Needs Debian's libfluidsynth3 and fluid-soundfont-gm (MIT licence).
"""

import fluidsynth
import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.functional import resample

from bundles.tiny.data import music

SOUNDFONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
SAMPLE_RATE = 16000
RENDER_RATE = 32000
BLOCK = 64
"""Samples per fluidsynth block; events are aligned to blocks."""
LEVEL = 2 / 2**15
"""Level of one 16-bit step: loud pieces peak at 0.75, without normalising each piece."""


class Renderer:
    """A fluidsynth instance that renders many pieces; loading its sounds takes seconds."""

    def __init__(self) -> None:
        self._synth = fluidsynth.Synth(samplerate=float(RENDER_RATE), gain=0.4)
        # Reverberation would carry one piece into the next.
        for effect in ("reverb", "chorus"):
            self._synth.setting(f"synth.{effect}.active", 0)
        self._font = self._synth.sfload(SOUNDFONT)
        if self._font < 0:
            raise FileNotFoundError(f"{SOUNDFONT}: install Debian's fluid-soundfont-gm")

    def render(self, piece: music.Piece, seconds: float) -> NDArray[np.float32]:
        """Render a piece to mono samples at 16 kHz, full scale ±1."""
        synth = self._synth
        synth.system_reset()
        for channel in (music.LEAD, music.MELODY, music.BASS, music.DRUM):
            synth.all_sounds_off(channel)
        synth.get_samples(BLOCK)
        for channel in (music.LEAD, music.MELODY):
            synth.program_select(channel, self._font, 0, music.FAMILIES[piece.family])
        synth.program_select(music.BASS, self._font, 0, music.BASSES.get(piece.genre, 32))
        synth.program_select(music.DRUM, self._font, 128, 0)
        events = [
            event
            for note in music.compose_notes(piece, seconds)
            for event in ((note.start, 1, note), (note.end, 0, note))
        ]
        done, parts = 0, []
        for at, begins, note in sorted(events, key=lambda event: event[:2]):
            frame = round(at * RENDER_RATE / BLOCK) * BLOCK
            parts.append(synth.get_samples(frame - done))
            done = frame
            if begins:
                synth.noteon(note.channel, note.pitch, note.velocity)
            else:
                synth.noteoff(note.channel, note.pitch)
        rest = max(int(seconds * RENDER_RATE) - done, 0)
        parts.append(synth.get_samples(-(-rest // BLOCK) * BLOCK))
        stereo = np.concatenate(parts).reshape(-1, 2)[: int(seconds * RENDER_RATE)]
        mono = torch.from_numpy(stereo.mean(1).astype(np.float32))
        audio = resample(mono, RENDER_RATE, SAMPLE_RATE).numpy()
        return np.asarray(audio * LEVEL, np.float32).clip(-1, 1)
