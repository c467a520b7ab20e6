"""MusicGen: text to music, as codec tokens."""

from ray import serve

from deployments.token_model import TokenModel


@serve.deployment(max_ongoing_requests=256)
class MusicGen(TokenModel):
    """Serves a MusicGen checkpoint."""
