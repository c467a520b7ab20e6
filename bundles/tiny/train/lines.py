"""A loss on what repeats in every frame of a codec's copy, and noise to hear it in.

Losses on spectral magnitudes cannot see it: for noise, whose phases a codec of few bits cannot
keep, the decoder does best with one waveform of the right spectrum, the same in every frame. That
waveform is heard as a buzz at the frame rate.
"""

import numpy as np
import torch
from torch import Tensor, nn

SILENCE = 1e-4
"""Root mean square of the noise below which no line is heard."""
NOTCH = 0.2
"""How far the lines' mean logarithm may lie below the original's: twice what chance makes of it."""


class LinesLoss(nn.Module):
    """How far the multiples of the frame rate stand out of the spectrum, beyond the original's.

    It is the root of the mean over lines of the power of a line over that of its neighbours, so far
    as that exceeds the original's and what chance makes of noise. The strongest lines count most: a
    mean of amplitudes or of logarithms took the others away first and left them (measured).
    Added is how far, in natural logarithms, the lines in the mean lie below the original's: else
    the spectrum gets notches there, which were 5 dB deep in noise (measured).
    """

    def __init__(self, hop: int, lowest: int = 4, chance: float = 2.0) -> None:
        super().__init__()
        self._hop, self._lowest, self._chance = hop, lowest, chance

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Compare [B, 1, samples] with the original; samples are a multiple of the hop."""
        lines, known = self._stand_out(made), self._stand_out(real)
        beyond = (lines / known.clamp(min=self._chance) - 1).relu().mean(-1)
        below = (known.log().mean(-1) - lines.log().mean(-1) - NOTCH).relu()
        loss: Tensor = ((beyond + 1e-4).sqrt() + below).mean()
        return loss

    def _stand_out(self, audio: Tensor) -> Tensor:
        samples = audio.shape[-1]
        spacing = samples // self._hop
        window = torch.hann_window(samples, device=audio.device)
        power = torch.fft.rfft(audio[:, 0] * window).abs().square()
        power = power + SILENCE**2 * window.square().sum()
        centres = torch.arange(self._lowest * spacing, samples // 2, spacing)
        away = torch.arange(4, spacing // 2 - 3)
        around = torch.cat([-away, away])
        lines = power[:, centres[:, None] + torch.arange(-1, 2)].mean(-1)
        # The neighbours learn from other losses: here they would only be made louder.
        ratio: Tensor = lines / power[:, centres[:, None] + around].mean(-1).detach()
        return ratio


def make_noise(draw: np.random.Generator, number: int, samples: int) -> Tensor:
    """Return noise of random colour and level, float32 [number, 1, samples]."""
    white = np.fft.rfft(draw.standard_normal((number, samples)))
    frequency = np.linspace(1 / samples, 1, white.shape[1])
    tilt = draw.uniform(-0.7, 0.5, (number, 1))
    noise = np.fft.irfft(white * np.maximum(frequency, 0.01) ** tilt, samples)
    level = 10 ** draw.uniform(-2, -0.7, (number, 1))
    noise *= level / noise.std(axis=1, keepdims=True)
    return torch.from_numpy(noise.clip(-1, 1).astype(np.float32))[:, None]
