"""Follows what is left of a task's charges while its clips are generated and decoded."""

from collections.abc import Iterator, Mapping

from deployments.ledger_state import Charge
from graph.tasks.task import AudioPart, ChargeBegin, ChargeLeft, Clip, Event, Progress


class ClipCharges:
    """The charges of one language model and of its decoder, for all of its clips in a task."""

    def __init__(
        self,
        model: str,
        decoding: Charge,
        frames: Mapping[int, int],
        *,
        known_frames: int = 0,
        at_once: int,
        begin: bool = True,
    ) -> None:
        """Create it for clips with these numbers and frames to generate.

        `decoding` is the decoder's charge; with `begin` it begins when the first clip is decoded,
        otherwise it was admitted before. Clips begin with `known_frames` of a prompt.
        """
        self._model, self._decoding, self._begin = model, decoding, begin
        self._decoding_name = f"{decoding.model} for {model}" if begin else decoding.model
        self._left, self._total = dict(frames), sum(frames.values())
        self._known, self._at_once = dict.fromkeys(frames, known_frames), at_once
        self._not_decoded, self._clips = set(frames), len(frames)

    def follow_event(self, event: Event) -> Iterator[ChargeBegin | ChargeLeft]:
        """Yield what an event changes in the charges."""
        if not isinstance(event, Progress | AudioPart | Clip) or event.clip not in self._left:
            return
        number = event.clip
        if isinstance(event, Clip):
            self._not_decoded.discard(number)
            yield ChargeLeft(self._decoding_name, len(self._not_decoded) / self._clips)
            return
        if isinstance(event, AudioPart):
            fresh = max(0, event.codes.frames - self._known[number])
            self._known[number] = max(0, self._known[number] - event.codes.frames)
            self._left[number] = max(0, self._left[number] - fresh)
        elif event.stage == "generate":
            self._left[number] = event.total - event.done
        else:
            return
        if self._begin and (isinstance(event, AudioPart) or not self._left[number]):
            self._begin = False
            yield ChargeBegin(self._decoding, self._decoding_name)
        running = sum(left > 0 for left in self._left.values())
        left = sum(self._left.values()) / max(self._total, 1)
        yield ChargeLeft(self._model, left, max(1, min(running, self._at_once)))
