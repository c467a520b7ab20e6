"""Every error that the engine raises on purpose.

    EngineError
    ├── InvalidRequest        the caller asked for what this model cannot do
    │   └── InvalidAudio          an uploaded file that is not audio, or not within the limits
    ├── Cancelled             the caller left; the work was stopped
    ├── GenerationFailed      the model failed on this request, or on the step that it was in
    ├── UnsupportedPrecision  the device cannot multiply in the precision asked for
    ├── NoRoom                a model or its caches do not fit the memory that it may take
    └── CheckpointError       a model file cannot be used
        ├── CheckpointNotFound     no such file, folder, bundle or hub repository
        ├── CheckpointUnreadable   truncated, or not a checkpoint at all
        └── CheckpointMismatch     readable, but of another kind, or its keys do not fit

All of them survive pickling, since they cross process boundaries.
"""


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message, or the error's name if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class EngineError(Exception):
    """Base of the tree; `str(error)` is a sentence for the person who can act on it."""


class InvalidRequest(EngineError):
    """A request that this model cannot serve.

    `param` is the name of the offending parameter, as the API spells it, or None.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class InvalidAudio(InvalidRequest):
    """An uploaded file that is not audio, is damaged, or is not within the limits."""


class Cancelled(EngineError):
    """The caller left while its request waited or ran."""


class GenerationFailed(EngineError):
    """The model failed on this request, or on the step that it was in."""


class UnsupportedPrecision(EngineError):
    """The device cannot multiply in the precision that a model's settings ask for."""


class NoRoom(EngineError):
    """A model, or not even one slot of it, does not fit the memory that it may take."""


class CheckpointError(EngineError):
    """A model file cannot be used; the message names the file and, if known, the key."""


class CheckpointNotFound(CheckpointError):
    """No such file, folder, bundle or hub repository."""


class CheckpointUnreadable(CheckpointError):
    """The file is truncated or is no checkpoint."""


class CheckpointMismatch(CheckpointError):
    """The file is a checkpoint, but of another kind, or its keys do not fit the model."""
