"""Reads and writes files of codes: safetensors with the tensor `codes` [codebooks, frames]."""

import json
import math

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from engine.params import CodecInfo, Codes
from graph.errors import ApiError

MAX_CODE = 2**15
"""The largest number of entries in a codebook; codes must be below it."""


def write_codes(codes: Codes, codec: CodecInfo, samples: int, model: str) -> bytes:
    """Build the file, with metadata about the audio and the codec."""
    metadata = {
        "model": model,
        "sample_rate": str(codec.sample_rate),
        "frame_rate": f"{codec.frame_rate:g}",
        "channels": str(codec.channels),
        "samples": str(samples),
    }
    return safetensors.save({"codes": codes.array().astype(np.int16)}, metadata=metadata)


def read_codes(data: bytes) -> tuple[Codes, int | None]:
    """Return the codes, and the samples per channel or None. Raises ApiError 422."""
    try:
        array = safetensors.load(data)["codes"]
        # The file begins with the length of its JSON header.
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        samples = head.get("__metadata__", {}).get("samples")
        if samples is not None and int(samples) < 1:
            raise ValueError(f"its metadata has {samples} samples")
        return pack_codes(array), None if samples is None else int(samples)
    except (SafetensorError, KeyError, ValueError) as error:
        reason = f"the file is not safetensors with an integer tensor 'codes': {error}"
        raise ApiError(422, "invalid_codes", reason, "codes_file") from error


def pack_codes(array: NDArray[np.generic]) -> Codes:
    """Pack an uploaded array. Raises ApiError 422 if the array cannot be codes."""
    if array.ndim != 2 or not array.size or not np.issubdtype(array.dtype, np.integer):
        reason = f"the codes are {array.dtype} with the shape {list(array.shape)}"
    elif array.min() < 0 or array.max() >= MAX_CODE:
        reason = "some codes are below 0, or far above the size of any codebook"
    else:
        return Codes.pack(array.astype(np.int64))
    raise ApiError(422, "invalid_codes", f"{reason}; send integers [codebooks, frames]", "codes")


def pack_rows(rows: list[list[int]]) -> Codes:
    """Pack a list of codes for each codebook. Raises ApiError 422 if their lengths differ."""
    if len({len(row) for row in rows}) > 1:
        message = "codes: every codebook must have the same number of frames"
        raise ApiError(422, "invalid_codes", message, "codes")
    return pack_codes(np.array(rows, np.int64))


def check_seconds(codes: Codes, codec: CodecInfo, most: float) -> None:
    """Check that codes are not longer than one request may decode. Raises ApiError 422."""
    seconds = codes.frames / codec.frame_rate
    if seconds > most:
        message = f"the codes have {seconds:g} s of audio; allowed: up to {most:g} s"
        raise ApiError(422, "invalid_value", message, "codes")


def check_length(seconds: float, most: float) -> None:
    """Check that a file is not longer than one request may encode. Raises ApiError 422."""
    if seconds > most:
        message = f"audio_file: the file has {seconds:g} s; allowed: up to {most:g} s"
        raise ApiError(422, "invalid_value", message, "audio_file")


def count_codebooks(info: CodecInfo, bandwidth: float, field: str = "bandwidth") -> int:
    """Return the number of codebooks for a bandwidth in kbit/s. Raises ApiError 422."""
    each = math.log2(info.cardinality) * info.frame_rate / 1000
    kept = round(bandwidth / each)
    if abs(kept * each - bandwidth) > 0.01 * each or not 1 <= kept <= info.codebooks:
        valid = ", ".join(f"{each * n:g}" for n in range(1, info.codebooks + 1))
        message = f"{field}: {bandwidth:g} kbit/s is not valid; this codec has {valid}"
        raise ApiError(422, "invalid_value", message, field)
    return kept
