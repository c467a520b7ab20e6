"""The caller of a request and the probe of uploads, which all builders of tasks use."""

from collections.abc import Mapping
from dataclasses import dataclass

from api.respond.rendering import Rendering
from api.service import Service
from deployments.ledger_state import Share
from graph.tasks.task import Task, Upload

AUDIO_FILE, CODES_FILE = "audio_file", "codes_file"
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Caller:
    """The share of a request's key, and the time when the request began."""

    share: Share
    began: float
    """The time in seconds by `time.perf_counter`."""


Parts = tuple[Task, Rendering]


async def probe_upload(service: Service, data: bytes, field: str) -> Upload:
    """Read the length of an upload without decoding it. Raises InvalidAudio."""
    return await service.pipeline.probe_upload(data, service.limits.build_media_limits(), field)
