"""Computes the windows of long clips, and how many positions a clip feeds to its model."""

from engine.errors import InvalidRequest
from engine.params import LanguageModelInfo, Waveform

LEAST_STRIDE = 0.1
"""The shortest stride in windows, so that no frame is fed more than ten times."""


def check_stride(info: LanguageModelInfo, stride_seconds: float | None) -> None:
    """Raise InvalidRequest if a model's windows cannot advance by so many seconds."""
    least, most = LEAST_STRIDE * info.max_seconds, info.max_seconds
    if stride_seconds is not None and not least <= stride_seconds < most:
        reason = f"at least {least:g} s, a tenth of this model's window, and below {most:g} s"
        message = f"extend_stride: {stride_seconds:g} s; allowed: {reason}"
        raise InvalidRequest(message, "extend_stride")


def count_stride_frames(info: LanguageModelInfo, stride_seconds: float | None) -> int:
    """Return the frames by which windows advance; None: the model's own stride."""
    seconds = info.stride_seconds if stride_seconds is None else stride_seconds
    return max(1, int(seconds * info.frame_rate))


def find_window_starts(
    frames: int, prompt_frames: int, max_frames: int, stride_frames: int
) -> list[int]:
    """Return the first frame of each window that generates a part of a clip.

    The first window is the earliest that has room after the prompt. Source:
    `BaseGenModel._generate_tokens`.
    """
    beyond = max(prompt_frames - max_frames + 1, 0)
    first = -(-beyond // stride_frames)
    last = -(-max(frames - max_frames, 0) // stride_frames)
    return [number * stride_frames for number in range(first, last + 1)]


def count_window_positions(frames: int, delay_frames: int, prefix: int) -> int:
    """Return the positions of one row that a window of so many frames feeds, and so has to keep.

    Of its `frames + delay_frames + 1` columns, the last one is drawn and not fed.
    """
    return prefix + frames + delay_frames


def count_positions(
    info: LanguageModelInfo,
    frames: int,
    prompt_frames: int = 0,
    stride_seconds: float | None = None,
) -> int:
    """Return the positions of one row that a clip of `frames` feeds, prompt included.

    Each window feeds its prefix, its prompt and its new frames. Only the text of a melody model is
    left out of its prefix: its length is not known before it is encoded.
    """
    max_frames = int(info.max_seconds * info.frame_rate)
    stride_frames = count_stride_frames(info, stride_seconds)
    starts = find_window_starts(frames, prompt_frames, max_frames, stride_frames)
    outside = (info.delay_frames, info.prefix_positions)
    return sum(count_window_positions(min(frames - at, max_frames), *outside) for at in starts)


MELODY_MARGIN_S = 8.5
"""Seconds after a window that its chroma depends on: half of a chroma frame's window, and the 7.8 s
that demucs separates at once."""


def cut_melody(
    info: LanguageModelInfo, melody: Waveform, frames: int, stride_seconds: float | None = None
) -> Waveform:
    """Return the part of a melody that a clip can use; AudioCraft drops all else.

    A clip of one window hears the melody for the model's whole window, however short the clip is.
    """
    max_frames = int(info.max_seconds * info.frame_rate)
    stride_frames = count_stride_frames(info, stride_seconds)
    last = find_window_starts(frames, 0, max_frames, stride_frames)[-1]
    margin = 0.0 if last else MELODY_MARGIN_S
    seconds = last / info.frame_rate + info.max_seconds + margin
    samples = int(seconds * melody.sample_rate) + 1
    return Waveform.pack(melody.array()[:, :samples], melody.sample_rate)
