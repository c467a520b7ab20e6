"""Deploys MusicGen, which turns text into codec tokens of music."""

from ray import serve

from deployments.settings import MusicGenSettings
from deployments.token_model import TokenModel


@serve.deployment
class MusicGen(TokenModel):
    """Serves a MusicGen checkpoint."""

    STRIDE_SECONDS = 18.0  # AudioCraft's `extend_stride` for MusicGen

    def __init__(self, settings: MusicGenSettings) -> None:
        super().__init__(settings, stem_separation=settings.stem_separation)
