"""The application's settings: `args` of the Serve file, and the ingress's `user_config`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, HttpUrl, model_validator

from deployments.settings import (
    AnyModelSettings,
    DiffusionSettings,
    Placement,
    RedisServer,
    StrictModel,
    TokenModelSettings,
)
from engine.params import MediaLimits
from graph.errors import ApiError

INGRESS, MEDIA, LEDGER = "ingress", "media", "ledger"
OURS = (INGRESS, MEDIA, LEDGER)
DECODED_BY_A_CODEC = (TokenModelSettings, DiffusionSettings)


class Limits(StrictModel):
    """What requests may ask for and cost; `api.settings.UserConfig` adds keys and qualities."""

    max_body_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    max_body_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that a body may be waited for in all; each 10 kB that come give one back."""
    max_text_chars: Annotated[int, Field(ge=1)] = 2000
    max_duration_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds of audio a request may ask for, where the model itself allows them."""
    max_clips: Annotated[int, Field(ge=1)] = 16
    """Prompts by variations of one request; parts of a workflow."""
    max_song_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds of a song, or of a podcast with its voice."""
    max_upload_bytes: Annotated[int, Field(ge=1)] = 50_000_000
    max_upload_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds of audio in an uploaded file, once decoded."""
    max_upload_channels: Annotated[int, Field(ge=1)] = 2
    cache_bytes: Annotated[int, Field(ge=0)] = 64_000_000
    """Of answers that an ingress keeps."""
    max_wait_s: Annotated[float, Field(gt=0)] = 60.0
    """A request that would wait longer for its model is refused, unless its key has less than its
    share of the model outstanding."""
    max_jobs: Annotated[int, Field(ge=1)] = 10_000
    """Waiting at once, of all keys."""
    max_jobs_per_key: Annotated[int, Field(ge=1)] = 1000
    keep_jobs_s: Annotated[float, Field(gt=0)] = 86_400.0
    """After what last happened to it, a job and its audio are deleted; answers that belong to an
    `Idempotency-Key` as well."""
    max_live: Annotated[int, Field(ge=1)] = 100
    """Live sessions at once of one ingress."""
    max_live_per_key: Annotated[int, Field(ge=1)] = 10
    max_live_s: Annotated[float, Field(gt=0)] = 3600.0
    """How long one may last."""
    live_idle_s: Annotated[float, Field(gt=0)] = 30.0
    """How long it may wait for its start, or for more to be played."""
    live_ahead_s: Annotated[float, Field(gt=0)] = 3.0
    """Seconds left to play at which its next passage is begun."""
    local_row_seconds: Annotated[float, Field(gt=0)] = 600.0
    """What one ingress lets in at once while it cannot reach the ledger."""

    def build_media_limits(self) -> MediaLimits:
        """Return what an uploaded file may be."""
        return MediaLimits(self.max_upload_bytes, self.max_upload_s, self.max_upload_channels)


def check_text(text: str, limits: Limits, field: str) -> None:
    """Check that a text is not too long."""
    if len(text) > limits.max_text_chars:
        message = f"{field}: {len(text)} characters; allowed: 1 to {limits.max_text_chars}"
        raise ApiError(422, "invalid_value", message, field)


def check_seconds(seconds: float, most: float, what: str, field: str, least: float = 0) -> None:
    """Check that something lasts neither too short nor too long; `what` begins the message."""
    if not least <= seconds <= most:
        allowed = f"from {least:g} to {most:g} s" if least else f"up to {most:g} s"
        message = f"{field}: {what}{seconds:g} s; allowed: {allowed}"
        raise ApiError(422, "invalid_value", message, field)


def check_clip_count(clips: int, limits: Limits, field: str) -> None:
    """Check that a workflow has not too many clips."""
    if clips > limits.max_clips:
        message = f"{field}: {clips} parts in one request; allowed: up to {limits.max_clips}"
        raise ApiError(422, "invalid_value", message, field)


class FolderStore(StrictModel):
    """A SQLite file and what jobs make, in one folder: for ingress replicas of one machine."""

    kind: Literal["folder"] = "folder"
    folder: Annotated[str, Field(min_length=1)] = "build/jobs"


class RedisStore(RedisServer):
    """Redis, and files where fsspec finds them: for clusters. The ledger is kept there as well."""

    kind: Literal["redis"]
    files: Annotated[str, Field(min_length=1)]
    """A folder that all replicas share, or an address such as `s3://bucket/jobs`."""


class JobsSettings(StrictModel):
    """How jobs are kept and worked on."""

    store: Annotated[FolderStore | RedisStore, Field(discriminator="kind")] = FolderStore()
    at_once: Annotated[int, Field(ge=0)] = 4
    """Jobs that one ingress replica works on; 0: it only accepts them."""
    webhook_hosts: tuple[str, ...] = ("*",)
    """Where webhooks may go, such as `hooks.example.com` or `*.example.com`."""
    webhooks_to_private_addresses: bool = False


class ContentCredentials(StrictModel):
    """In whose name files are signed, by C2PA. Both files are read when an ingress starts."""

    certificates: Path
    """PEM: the signer's, then those above it."""
    private_key: Path
    """PEM, as PKCS#8 without a passphrase."""
    algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = "es256"
    time_stamp_url: HttpUrl | None = None
    """Of an authority (RFC 3161) that every signature then waits for, 30 seconds at most."""


class IngressSettings(Placement):
    """Where the HTTP application runs."""

    num_cpus: Annotated[float, Field(ge=0)] = 0.1
    jobs: JobsSettings = JobsSettings()
    cors_origins: tuple[str, ...] = ()
    """Whose pages may call the API from a browser, such as `https://example.com`."""
    content_credentials: ContentCredentials | None = None
    """Without, no file is signed."""


class MediaSettings(Placement):
    """Where uploaded files are decoded, apart from what they could break."""

    num_cpus: Annotated[float, Field(ge=0)] = 0.1


class AppArgs(StrictModel):
    """The `args` of the application: what shapes it. A change restarts every deployment."""

    models: Annotated[list[AnyModelSettings], Field(min_length=1)]
    ingress: IngressSettings = IngressSettings()
    media: MediaSettings = MediaSettings()

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [model.name for model in self.models]
        for name in names:
            if names.count(name) > 1 or name in OURS:
                reserved = f"reserved are {', '.join(OURS)}"
                raise ValueError(f"the name {name!r} is taken twice; {reserved}")
        codecs = [model.name for model in self.models if model.kind == "encodec"]
        for model in self.models:
            if isinstance(model, DECODED_BY_A_CODEC) and model.codec not in codecs:
                raise ValueError(
                    f"model {model.name!r} names the codec {model.codec!r}; "
                    f"the encodec entries are: {', '.join(codecs) or 'none'}"
                )
        return self
