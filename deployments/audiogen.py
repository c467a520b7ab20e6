"""AudioGen: text to sound effects and ambience, as codec tokens."""

from ray import serve

from deployments.token_model import TokenModel


@serve.deployment(max_ongoing_requests=256)
class AudioGen(TokenModel):
    """Serves an AudioGen checkpoint."""
