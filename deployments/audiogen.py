"""AudioGen: text to sound effects and ambience, as codec tokens."""

from ray import serve

from deployments.token_model import SHUTDOWN_S, TokenModel


@serve.deployment(graceful_shutdown_timeout_s=SHUTDOWN_S)
class AudioGen(TokenModel):
    """Serves an AudioGen checkpoint."""

    STRIDE_SECONDS = 2.0  # AudioCraft's `extend_stride` for AudioGen
