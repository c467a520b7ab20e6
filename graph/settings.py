"""Defines the settings: the `args` of the Serve file, and the limits in its `user_config`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, HttpUrl, model_validator

from deployments.settings import (
    AnyModelSettings,
    Autoscaling,
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
    """The limits of requests; `api.settings.UserConfig` adds keys and qualities."""

    max_body_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    max_body_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that a body may take to arrive, and one second more for each 10 kB of it."""
    max_text_chars: Annotated[int, Field(ge=1)] = 2000
    max_duration_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds of audio that a request may ask for; the model may allow less."""
    max_clips: Annotated[int, Field(ge=1, le=1000)] = 16
    """The prompts times the variations of a request, or the parts of a workflow."""
    max_song_s: Annotated[float, Field(gt=0)] = 300.0
    """The longest song, or podcast with its voice, in seconds."""
    max_upload_bytes: Annotated[int, Field(ge=1)] = 50_000_000
    max_upload_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds of audio in an uploaded file, measured after decoding."""
    max_upload_channels: Annotated[int, Field(ge=1)] = 2
    cache_bytes: Annotated[int, Field(ge=0)] = 64_000_000
    """The size of the answers that an ingress keeps."""
    max_held_bytes: Annotated[int, Field(ge=1)] = 2_000_000_000
    """The bytes of audio, uploads and answers that the requests of one ingress may hold."""
    max_wait_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds; a request that would wait longer for its model is refused, and one whose key has
    more outstanding than its share of what starts by then."""
    max_jobs: Annotated[int, Field(ge=1)] = 10_000
    """How many jobs of all keys may wait at once."""
    max_jobs_per_key: Annotated[int, Field(ge=1)] = 1000
    keep_jobs_s: Annotated[float, Field(gt=0)] = 86_400.0
    """Seconds after its last change at which a job is deleted, or the answer of an
    `Idempotency-Key`."""
    max_live: Annotated[int, Field(ge=1)] = 100
    """How many live sessions one ingress may have at once."""
    max_live_per_key: Annotated[int, Field(ge=1)] = 10
    max_live_s: Annotated[float, Field(gt=0)] = 3600.0
    """The longest live session, in seconds."""
    live_idle_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that a session waits for its start, or for a report that more was played."""
    live_ahead_s: Annotated[float, Field(gt=0)] = 3.0
    """The next passage is begun when this many seconds are left to play."""
    local_row_seconds: Annotated[float, Field(gt=0)] = 600.0
    """The row-seconds that one ingress admits at once while it cannot reach the ledger."""

    def build_media_limits(self) -> MediaLimits:
        """Return the limits of an uploaded file."""
        return MediaLimits(self.max_upload_bytes, self.max_upload_s, self.max_upload_channels)


def check_text(text: str, limits: Limits, field: str) -> None:
    """Raise ApiError 422 where a text is too long."""
    if len(text) > limits.max_text_chars:
        message = f"{field}: {len(text)} characters; allowed: 1 to {limits.max_text_chars}"
        raise ApiError(422, "invalid_value", message, field)


def check_seconds(seconds: float, most: float, what: str, field: str, least: float = 0) -> None:
    """Raise ApiError 422 where a length is not allowed; `what` begins the message."""
    if not least <= seconds <= most:
        allowed = f"from {least:g} to {most:g} s" if least else f"up to {most:g} s"
        message = f"{field}: {what}{seconds:g} s; allowed: {allowed}"
        raise ApiError(422, "invalid_value", message, field)


def check_clip_count(clips: int, limits: Limits, field: str) -> None:
    """Raise ApiError 422 where a workflow has too many clips."""
    if clips > limits.max_clips:
        message = f"{field}: {clips} parts in one request; allowed: up to {limits.max_clips}"
        raise ApiError(422, "invalid_value", message, field)


class FolderStore(StrictModel):
    """A folder with a SQLite file and the files of jobs, for an ingress of one replica."""

    kind: Literal["folder"] = "folder"
    folder: Annotated[str, Field(min_length=1)] = "build/jobs"
    replace_damaged: bool = False
    """Whether a damaged SQLite file is renamed, and a new one without its jobs begun."""


class RedisStore(RedisServer):
    """Redis for jobs and the ledger, and a folder for files that fsspec can open; for clusters."""

    kind: Literal["redis"]
    files: Annotated[str, Field(min_length=1)]
    """A folder that all replicas share, or a URL such as `s3://bucket/jobs`."""


class JobsSettings(StrictModel):
    """The store of jobs, how many run at once, and where webhooks may go."""

    store: Annotated[FolderStore | RedisStore, Field(discriminator="kind")] = FolderStore()
    at_once: Annotated[int, Field(ge=0)] = 4
    """How many jobs one ingress replica runs at once; with 0 it only accepts jobs."""
    webhook_hosts: tuple[str, ...] = ("*",)
    """The hosts that webhooks may go to, such as `hooks.example.com` or `*.example.com`."""
    webhooks_to_private_addresses: bool = False


class ContentCredentials(StrictModel):
    """The certificates and key that sign files by C2PA; an ingress reads them when it starts."""

    certificates: Path
    """A PEM file with the signer's certificate, then those of the authorities above it."""
    private_key: Path
    """A PEM file with a PKCS#8 key without a passphrase."""
    algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = "es256"
    time_stamp_url: HttpUrl | None = None
    """The URL of a time stamp authority (RFC 3161); a signature waits for it at most 30 seconds."""


class IngressSettings(Placement):
    """The resources of the HTTP application, and the settings of its jobs and signatures."""

    num_cpus: Annotated[float, Field(ge=0)] = 0.1
    jobs: JobsSettings = JobsSettings()
    cors_origins: tuple[str, ...] = ()
    """The origins whose pages may call the API from a browser, such as `https://example.com`."""
    allowed_hosts: tuple[str, ...] = ()
    """The names by which a server without keys may be called, such as `audio.example.com` or
    `*.example.com`, beside its addresses and `localhost`."""
    content_credentials: ContentCredentials | None = None
    """Files are signed only where this is set."""

    @model_validator(mode="after")
    def _check_store(self) -> Self:
        one = self.replicas == 1 or (
            isinstance(self.replicas, Autoscaling) and self.replicas.max_replicas == 1
        )
        if isinstance(self.jobs.store, FolderStore) and (self.spread or not one):
            raise ValueError(
                "several ingress replicas cannot share a folder of jobs; give ingress one replica "
                "without spread, or set ingress.jobs.store to kind: redis"
            )
        return self


class MediaSettings(Placement):
    """The resources of the processes that decode uploaded files, apart from all other work."""

    num_cpus: Annotated[float, Field(ge=0)] = 0.1


class AppArgs(StrictModel):
    """The `args` of the application; a change of them restarts every deployment."""

    models: Annotated[list[AnyModelSettings], Field(min_length=1)]
    ingress: IngressSettings = IngressSettings()
    media: MediaSettings = MediaSettings()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [model.name for model in self.models]
        for name in names:
            if names.count(name) > 1 or name in OURS:
                reserved = f"reserved are {', '.join(OURS)}"
                raise ValueError(f"the name {name!r} is used twice or reserved; {reserved}")
        codecs = [model.name for model in self.models if model.kind == "encodec"]
        for model in self.models:
            if isinstance(model, DECODED_BY_A_CODEC) and model.codec not in codecs:
                raise ValueError(
                    f"model {model.name!r} names the codec {model.codec!r}; "
                    f"the encodec entries are: {', '.join(codecs) or 'none'}"
                )
        return self
