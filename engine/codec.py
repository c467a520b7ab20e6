"""Decodes codes to audio and encodes audio to codes with EnCodec, whole or piece by piece."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from audiocraft.models.encodec import CompressionModel, InterleaveStereoCompressionModel
from torch import Tensor

from engine.batches import serve_in_groups
from engine.checkpoints import load_codec
from engine.codec_networks import CodecNetworks, pack_state, unpack_state
from engine.errors import CheckpointMismatch, InvalidRequest
from engine.params import (
    AudioPiece,
    CodecInfo,
    Codes,
    CodesPiece,
    Waveform,
    describe_bad_samples,
)


class Codec:
    """An EnCodec model that serves several requests at once.

    For a clip in one piece the result equals AudioCraft's, bit by bit on the CPU. For a clip in
    several pieces, the caller sends the state of each answer with its next request, to this or
    another replica, and the joined pieces differ from the whole only by rounding. A piece is
    shorter than its input by the network's lookahead; the last piece brings the rest.

    Only requests of equal shape, at the same point of their clips, share a forward pass: the
    networks look ahead, so padding would change the result. On the CPU every request runs alone,
    because a batch of 8 took 1.3 to 3.7 times as long there (measured).
    """

    def __init__(self, model: CompressionModel) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self._networks = CodecNetworks(model)
        self.done = 0
        """Pieces processed so far; health checks compare it over time."""

    @classmethod
    def load(cls, source: str, *, device: str, stereo: bool = False) -> "Codec":
        """Load from a checkpoint; see `engine.checkpoints`. Raises a CheckpointError.

        With `stereo`, a mono codec processes left and right separately and interleaves their
        codebooks, as for musicgen-stereo (`get_wrapped_compression_model`).
        """
        model = load_codec(source, device=device)
        if stereo and model.channels != 1:
            raise CheckpointMismatch(
                f"{source}: {model.channels} channels; stereo needs a mono codec"
            )
        try:
            return cls(InterleaveStereoCompressionModel(model) if stereo else model)
        except TypeError as error:
            raise CheckpointMismatch(f"{source}: {error}, which is not served") from error

    @property
    def info(self) -> CodecInfo:
        """The properties of the codec."""
        return CodecInfo(
            codebooks=self.model.num_codebooks,
            cardinality=self.model.cardinality,
            sample_rate=self.model.sample_rate,
            channels=self.model.channels,
            frame_rate=float(self.model.frame_rate),
        )

    def decode(self, pieces: Sequence[CodesPiece]) -> list[AudioPiece | InvalidRequest]:
        """Decode each piece; an invalid piece yields its error and does not affect the others.

        A piece may have the first codebooks only, as in AudioCraft.
        """
        return serve_in_groups(
            pieces, self.device, reject=self._reject_codes, shape=_get_shape, serve=self._decode_all
        )

    def encode(self, pieces: Sequence[AudioPiece]) -> list[CodesPiece | InvalidRequest]:
        """Encode each piece; an invalid piece yields its error and does not affect the others.

        The audio must have the codec's sample rate and channels. All codebooks are returned; a
        caller that needs fewer keeps the first.
        """
        return serve_in_groups(
            pieces, self.device, reject=self._reject_audio, shape=_get_shape, serve=self._encode_all
        )

    @torch.inference_mode()
    def _decode_all(self, pieces: Sequence[CodesPiece]) -> list[AudioPiece]:
        stacked = np.stack([piece.codes.array() for piece in pieces]).astype(np.int64)
        codes, ended = torch.from_numpy(stacked).to(self.device), pieces[0].ended
        if ended and not pieces[0].state:
            audio, states = self.model.decode(codes, None), [b""] * len(pieces)
        else:
            before = unpack_state([piece.state for piece in pieces], self.device)
            audio, after = self._networks.decode_piece(codes, before, ended)
            states = [b""] * len(pieces) if ended else pack_state(after)
        self.done += len(pieces)
        waves = [Waveform.pack(one, self.model.sample_rate) for one in audio.float().cpu().numpy()]
        return [AudioPiece(*made, ended) for made in zip(waves, states, strict=True)]

    @torch.inference_mode()
    def _encode_all(self, pieces: Sequence[AudioPiece]) -> list[CodesPiece]:
        stacked = np.stack([piece.audio.array() for piece in pieces])
        audio, ended = torch.from_numpy(stacked).to(self.device), pieces[0].ended
        codes: Tensor
        if ended and not pieces[0].state:
            codes, scale = self.model.encode(audio)
            assert scale is None, "a codec that normalises its input must have been refused"
            states = [b""] * len(pieces)
        else:
            before = unpack_state([piece.state for piece in pieces], self.device)
            codes, after = self._networks.encode_piece(audio, before, ended)
            states = [b""] * len(pieces) if ended else pack_state(after)
        self.done += len(pieces)
        made = zip(codes.cpu().numpy(), states, strict=True)
        return [CodesPiece(Codes.pack(one), state, ended) for one, state in made]

    def _reject_codes(self, piece: CodesPiece) -> InvalidRequest | None:
        """Return the error for codes that this codec cannot decode, or None."""
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

    def _reject_audio(self, piece: AudioPiece) -> InvalidRequest | None:
        """Return the error for audio that this codec cannot encode, or None."""
        audio, info = piece.audio, self.info
        if (audio.sample_rate, audio.channels) != (info.sample_rate, info.channels):
            problem = f"this codec encodes {info.sample_rate} Hz with {info.channels} channels"
        elif not audio.data and not piece.state:
            problem = "no samples to encode"
        elif bad := describe_bad_samples(audio.array()):
            problem = bad
        else:
            return None
        return InvalidRequest(problem, "audio")

    def probe(self) -> None:
        """Decode one frame, to check that the model still works."""
        frame = np.zeros((self.info.codebooks, 1), np.int16)
        (audio,) = self.decode([CodesPiece(Codes.pack(frame))])
        assert isinstance(audio, AudioPiece)


def _get_shape(piece: AudioPiece | CodesPiece) -> Hashable:
    """Return what must be equal in all pieces of a batch."""
    if isinstance(piece, CodesPiece):
        size: Hashable = piece.codes.codebooks, piece.codes.frames
    else:
        size = piece.audio.samples
    return size, len(piece.state), piece.ended
