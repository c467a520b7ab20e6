"""What all builders of tasks use: who calls, and the probe of uploads."""

from collections.abc import Mapping
from dataclasses import dataclass

from api.respond.rendering import Rendering
from api.service import Service
from deployments.accounts import Share
from graph.tasks.task import Task, Upload

AUDIO_FILE, CODES_FILE = "audio_file", "codes_file"
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Caller:
    """Whose request it is, and since when."""

    share: Share
    began: float
    """By `time.perf_counter`."""


Parts = tuple[Task, Rendering]


async def probe_upload(service: Service, data: bytes, field: str) -> Upload:
    """Return an upload with its length; it is not decoded. Raises InvalidAudio."""
    return await service.pipeline.probe_upload(data, service.limits.build_media_limits(), field)
