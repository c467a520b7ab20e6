"""The exception tree of the engine.

    EngineError
    ├── InvalidRequest        the model cannot do what the caller asked for
    │   └── InvalidAudio          an uploaded file is not audio, or exceeds the limits
    ├── Cancelled             the caller disconnected, so the work was stopped
    ├── GenerationFailed      the model failed on this request or on its decode step
    ├── EngineFailed          the engine or its GPU failed for good; the process must be replaced
    ├── UnsupportedPrecision  the device cannot multiply in the requested precision
    ├── NoRoom                the model or its caches do not fit into their memory budget
    └── CheckpointError       a model file cannot be used
        ├── CheckpointNotFound     no such file, folder, bundle or hub repository
        ├── CheckpointUnreadable   truncated, or not a checkpoint at all
        └── CheckpointMismatch     of another kind of model, or its keys do not fit

Every error can be pickled, since it travels between processes.
"""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if that is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class EngineError(Exception):
    """The base class; `str(error)` is a sentence for the person who can fix the cause."""


class InvalidRequest(EngineError):
    """A request that this model cannot serve.

    `param` is the API name of the parameter that caused the error, or None.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class InvalidAudio(InvalidRequest):
    """An uploaded file that is not audio, is damaged or exceeds the limits."""


class Cancelled(EngineError):
    """The caller disconnected while its request was waiting or running."""


class GenerationFailed(EngineError):
    """The model failed on this request or on its decode step."""


class EngineFailed(EngineError):
    """The engine's thread or its GPU has failed, and this process can serve no request any more."""


class UnsupportedPrecision(EngineError):
    """The device cannot multiply in the precision that the model's settings request."""


class NoRoom(EngineError):
    """The model, or the cache of one slot, does not fit into its memory budget."""


class CheckpointError(EngineError):
    """A model file cannot be used; the message names the file and, where known, the key."""


class CheckpointNotFound(CheckpointError):
    """The file, folder, bundle or hub repository does not exist."""


class CheckpointUnreadable(CheckpointError):
    """The file is truncated or is not a checkpoint."""


class CheckpointMismatch(CheckpointError):
    """The file is a checkpoint of another kind of model, or its keys do not fit the model."""
