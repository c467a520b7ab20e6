"""Deploys AudioGen, which turns text into codec tokens of sound effects and ambience."""

from ray import serve

from deployments.token_model import TokenModel


@serve.deployment
class AudioGen(TokenModel):
    """Serves an AudioGen checkpoint."""

    STRIDE_SECONDS = 2.0  # AudioCraft's `extend_stride` for AudioGen
