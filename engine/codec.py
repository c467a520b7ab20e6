"""Codes to audio and audio to codes, by AudioCraft's EnCodec: whole clips, or piece by piece."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from audiocraft.models.encodec import CompressionModel, InterleaveStereoCompressionModel
from torch import Tensor

from engine.batches import serve_in_groups
from engine.checkpoints import load_codec
from engine.codec_networks import Networks, pack, unpack
from engine.errors import CheckpointMismatch, InvalidRequest
from engine.params import AudioPiece, CodecInfo, Codes, CodesPiece, Waveform


class Codec:
    """An EnCodec that serves several requests at once.

    A whole clip in one piece is what AudioCraft makes of it, bit by bit on the CPU. In several, the
    caller carries the state from each answer to the next request, to this or another replica; the
    pieces joined are the same but for rounding. Pieces come short by what the network must still
    see to its right, and the last brings that.

    Only requests of equal shape, at the same point of a clip, share a forward pass: the networks
    look ahead, so padding would change what they make. On the CPU none do (measured there, a batch
    of 8 took 1.3 to 3.7 times as long).
    """

    def __init__(self, model: CompressionModel) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self._networks = Networks(model)
        self.done = 0
        """Requests served since the start; health checks watch it grow."""

    @classmethod
    def load(cls, source: str, *, device: str, stereo: bool = False) -> "Codec":
        """Load from a checkpoint; see `engine.checkpoints`. Raises a CheckpointError.

        With `stereo`, a mono codec codes left and right apart and interleaves their codebooks, as
        musicgen-stereo's (`get_wrapped_compression_model`).
        """
        model = load_codec(source, device=device)
        if stereo and model.channels != 1:
            raise CheckpointMismatch(f"{source}: has {model.channels} channels; stereo is for mono")
        try:
            return cls(InterleaveStereoCompressionModel(model) if stereo else model)
        except TypeError as error:
            raise CheckpointMismatch(f"{source}: {error}, which is not served") from error

    @property
    def info(self) -> CodecInfo:
        """What this codec takes and gives."""
        return CodecInfo(
            codebooks=self.model.num_codebooks,
            cardinality=self.model.cardinality,
            sample_rate=self.model.sample_rate,
            channels=self.model.channels,
            frame_rate=float(self.model.frame_rate),
        )

    def decode(self, pieces: Sequence[CodesPiece]) -> list[AudioPiece | InvalidRequest]:
        """Decode each piece; a bad one yields its error and disturbs no other.

        Codes of the first codebooks only are decoded as AudioCraft decodes them.
        """
        return serve_in_groups(
            pieces, self.device, problem=self._bad_codes, shape=_shape, serve=self._decode
        )

    def encode(self, pieces: Sequence[AudioPiece]) -> list[CodesPiece | InvalidRequest]:
        """Encode each piece with all codebooks; a bad one yields its error and disturbs no other.

        Audio has the codec's rate and channels; the codes of fewer codebooks are the first of all.
        """
        return serve_in_groups(
            pieces, self.device, problem=self._bad_audio, shape=_shape, serve=self._encode
        )

    @torch.inference_mode()
    def _decode(self, pieces: Sequence[CodesPiece]) -> list[AudioPiece]:
        stacked = np.stack([piece.codes.array() for piece in pieces]).astype(np.int64)
        codes, ended = torch.from_numpy(stacked).to(self.device), pieces[0].ended
        if ended and not pieces[0].state:
            audio, states = self.model.decode(codes, None), [b""] * len(pieces)
        else:
            before = unpack([piece.state for piece in pieces], self.device)
            audio, after = self._networks.decode(codes, before, ended)
            states = [b""] * len(pieces) if ended else pack(after)
        self.done += len(pieces)
        waves = [Waveform.pack(one, self.model.sample_rate) for one in audio.float().cpu().numpy()]
        return [AudioPiece(*made, ended) for made in zip(waves, states, strict=True)]

    @torch.inference_mode()
    def _encode(self, pieces: Sequence[AudioPiece]) -> list[CodesPiece]:
        stacked = np.stack([piece.audio.array() for piece in pieces])
        audio, ended = torch.from_numpy(stacked).to(self.device), pieces[0].ended
        codes: Tensor
        if ended and not pieces[0].state:
            codes, scale = self.model.encode(audio)
            assert scale is None, "a codec that normalises was not refused"
            states = [b""] * len(pieces)
        else:
            before = unpack([piece.state for piece in pieces], self.device)
            codes, after = self._networks.encode(audio, before, ended)
            states = [b""] * len(pieces) if ended else pack(after)
        self.done += len(pieces)
        made = zip(codes.cpu().numpy(), states, strict=True)
        return [CodesPiece(Codes.pack(one), state, ended) for one, state in made]

    def _bad_codes(self, piece: CodesPiece) -> InvalidRequest | None:
        codes, info = piece.codes, self.info
        if isinstance(self.model, InterleaveStereoCompressionModel):
            least, wanted = info.codebooks, f"{info.codebooks} codebooks, left and right in turn"
        else:
            least, wanted = 1, f"1 to {info.codebooks}"
        if not least <= codes.codebooks <= info.codebooks:
            problem = f"{codes.codebooks} codebooks; this codec decodes {wanted}"
        elif codes.frames < 1 and not piece.state:
            problem = "no frames to decode"
        elif (
            codes.frames and not 0 <= codes.array().min() <= codes.array().max() < info.cardinality
        ):
            problem = f"codes must be from 0 to {info.cardinality - 1}"
        else:
            return None
        return InvalidRequest(problem, "codes")

    def _bad_audio(self, piece: AudioPiece) -> InvalidRequest | None:
        audio, info = piece.audio, self.info
        if (audio.sample_rate, audio.channels) != (info.sample_rate, info.channels):
            problem = f"this codec encodes {info.sample_rate} Hz with {info.channels} channels"
        elif not audio.data and not piece.state:
            problem = "no samples to encode"
        elif not np.isfinite(audio.array()).all():
            problem = "samples that are not numbers"
        else:
            return None
        return InvalidRequest(problem, "audio")

    def probe(self) -> None:
        """Decode one frame, to see that the model still answers."""
        (audio,) = self.decode([CodesPiece(Codes.pack(np.zeros((1, 1), np.int16)))])
        assert isinstance(audio, AudioPiece)


def _shape(piece: AudioPiece | CodesPiece) -> Hashable:
    if isinstance(piece, CodesPiece):
        size: Hashable = piece.codes.codebooks, piece.codes.frames
    else:
        size = piece.audio.samples
    return size, len(piece.state), piece.ended
