"""The mix of a soak: clips, streams, clients that leave, uploads, and bad bodies."""

import io
import json
import random
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import aiohttp
import numpy as np
import soundfile

from benchmarks.fuzz_media import damage_file
from benchmarks.media_files import FILES
from benchmarks.soak.processes import MAX_UPLOAD_S
from benchmarks.soak.traffic import Traffic, leave_early, request_clip

DURATIONS = (1.0, 2.0, 5.0, 10.0)
LONG_S = 20.0
INVALID = (400, 413, 415, 422)
BAD_BODIES: tuple[bytes, ...] = (
    b"{",
    b"[]",
    b'{"prompt": 7, "duration": 1}',
    b'{"prompt": "a", "duration": -1}',
    b'{"prompt": "a", "duration": 1e9}',
    b'{"prompt": "a", "duration": 1, "unknown": true}',
    b'{"prompt": "\xff\xfe", "duration": 1}',
    json.dumps({"prompt": "a " * 2000, "duration": 1}).encode(),
    json.dumps({"sections": [{}] * 20_000}).encode(),
)


def draw_body(draw: random.Random) -> dict[str, Any]:
    """Draw a generation without a seed, so that each clip is another."""
    body: dict[str, Any] = {"prompt": "calm piano", "duration": draw.choice(DURATIONS)}
    if draw.random() < 0.25:
        body["guidance_scale"] = 1
    if draw.random() < 0.25:
        body |= {"model": "sound", "prompt": "rain on a roof"}
    return body


def draw_file(draw: random.Random) -> bytes:
    """Draw a valid file of a second, of any format."""
    return FILES[draw.choice(list(FILES))]()


def encode_rate(rate: int, seconds: float) -> bytes:
    """Encode a silent WAV file of any stated rate."""
    file = io.BytesIO()
    silence = np.zeros(int(rate * seconds), np.int16)
    soundfile.write(file, silence, rate, "PCM_16", format="WAV")
    return file.getvalue()


def build_form(data: bytes, field: str = "audio_file", **fields: str) -> aiohttp.FormData:
    """Build a form with one file."""
    form = aiohttp.FormData(fields)
    form.add_field(field, data, filename="a.wav")
    return form


async def request_some_clip(traffic: Traffic) -> None:
    """Request one clip."""
    await request_clip(traffic, "clip", draw_body(traffic.draw))


async def request_variations(traffic: Traffic) -> None:
    """Request three variations as JSON."""
    body = {"prompt": "slow jazz", "duration": 2.0, "n": 3}
    await request_clip(traffic, "three clips", body)


async def read_stream(traffic: Traffic) -> None:
    """Read a stream to its end."""
    await request_clip(traffic, "stream", draw_body(traffic.draw) | {"stream": True})


async def cut_stream(traffic: Traffic) -> None:
    """Leave a stream."""
    body = draw_body(traffic.draw) | {"stream": True, "duration": LONG_S}
    await leave_early(traffic, "stream, cut", body, traffic.draw.uniform(0.2, 4))


async def cut_clip(traffic: Traffic) -> None:
    """Leave before the clip is there, or just when it comes."""
    body = draw_body(traffic.draw) | {"duration": LONG_S}
    await leave_early(traffic, "clip, cut", body, traffic.draw.uniform(0.05, 2))


async def repeat_seed(traffic: Traffic) -> None:
    """Request one of a few clips that the cache may have."""
    body = {"prompt": "calm piano", "duration": 2.0, "seed": traffic.draw.randrange(30)}
    await request_clip(traffic, "clip with a seed", body)


async def repeat_key(traffic: Traffic) -> None:
    """Request a clip twice with one key."""
    body, key = draw_body(traffic.draw) | {"duration": 1.0}, str(uuid4())
    for kind in ("with a key", "with a key, again"):
        await request_clip(traffic, kind, body, **{"idempotency-key": key})


async def upload_file(traffic: Traffic) -> None:
    """Encode a valid file."""
    async with traffic.note_outcome("encode", [200]) as noted:
        form = build_form(draw_file(traffic.draw))
        noted.status, noted.body = await traffic.send("POST", "/v1/codec/encode", data=form)


async def upload_bad_file(traffic: Traffic) -> None:
    """Upload a file that is too long, of a wrong rate, or damaged, which some decoders repair."""
    kind = traffic.draw.choice(["too long", "wrong rate", "damaged"])
    if kind == "too long":
        data = encode_rate(8000, MAX_UPLOAD_S + 1)
    elif kind == "wrong rate":
        data = encode_rate(traffic.draw.choice([10, 900, 400_000]), 1)
    else:
        seeded = np.random.default_rng(traffic.draw.randrange(2**32))
        data = damage_file(draw_file(traffic.draw), seeded)
    allowed = (200, *INVALID) if kind == "damaged" else INVALID
    async with traffic.note_outcome(f"upload, {kind}", allowed) as noted:
        form = build_form(data)
        noted.status, noted.body = await traffic.send("POST", "/v1/codec/encode", data=form)


async def send_bad_body(traffic: Traffic) -> None:
    """Send a body that is not valid."""
    path = traffic.draw.choice(["/v1/generations", "/v1/jobs", "/v1/workflows/song"])
    data = traffic.draw.choice(BAD_BODIES)
    async with traffic.note_outcome("bad body", INVALID) as noted:
        headers = {"content-type": "application/json"}
        noted.status, noted.body = await traffic.send("POST", path, data=data, headers=headers)


async def read_statistics(traffic: Traffic) -> None:
    """Read what a dashboard reads."""
    for path in ("/v1/stats", "/v1/models", "/v1/jobs?limit=20"):
        async with traffic.note_outcome(path.partition("?")[0], [200]) as noted:
            noted.status, noted.body = await traffic.send("GET", path)


Send = Callable[[Traffic], Coroutine[Any, Any, None]]
MIX: list[tuple[Send, float]] = [
    (request_some_clip, 24),
    (request_variations, 2),
    (read_stream, 20),
    (cut_stream, 8),
    (cut_clip, 6),
    (repeat_seed, 6),
    (repeat_key, 3),
    (upload_file, 8),
    (upload_bad_file, 8),
    (send_bad_body, 6),
    (read_statistics, 2),
]
"""What connected clients send, with its weight."""
