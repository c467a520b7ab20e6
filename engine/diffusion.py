"""Decodes a codec's latents to audio by multi-band diffusion, with one U-Net per band.

Source: `audiocraft/models/multibanddiffusion.py`. The noise of each request comes from its own
seed, so it gets the same samples whatever else is in its batch. AudioCraft equalises a whole batch
together; here each clip is equalised alone.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from audiocraft.models.encodec import CompressionModel
from audiocraft.modules.diffusion_schedule import NoiseSchedule, betas_from_alpha_bar
from julius.bands import SplitBands
from torch import Tensor, nn

from engine.batches import serve_in_groups
from engine.checkpoints import DIFFUSION_FILE, load_codec, load_diffusion
from engine.errors import (
    Cancelled,
    CheckpointMismatch,
    EngineError,
    GenerationFailed,
    InvalidRequest,
)
from engine.params import CodecInfo, Codes, Waveform

STEPS = [*range(999, -1, -50), 0]
"""The steps of the schedule's thousand that are run; the last entry only ends the list."""
EQUALIZER_BANDS = 32


@dataclass(frozen=True)
class Band:
    """The model of one frequency band, and its noise schedule."""

    model: nn.Module
    schedule: NoiseSchedule
    betas: Tensor
    """The betas of the steps in `STEPS`, in the schedule's order."""

    @classmethod
    def build(cls, model: nn.Module, schedule: NoiseSchedule) -> "Band":
        """Build a band whose schedule has only the steps in `STEPS`."""
        bars = schedule.get_alpha_bar().cpu()[STEPS[::-1]]
        return cls(model, schedule, betas_from_alpha_bar(bars))

    def denoise_step(self, noisy: Tensor, estimate: Tensor, index: int, fresh: Tensor) -> Tensor:
        """Denoise from `STEPS[index]` to the next step, as `NoiseSchedule.generate_subsampled`.

        `estimate` is the U-Net's output, and `fresh` is new noise; all are [B, C, T].
        """
        schedule = self.schedule
        alpha, bar = 1 - self.betas[-1 - index], schedule.get_alpha_bar(STEPS[index])
        share = (1 - alpha) / (1 - bar).sqrt()
        clean = (noisy - share * (estimate * schedule.noise_scale)) / alpha.sqrt()
        if index < len(STEPS) - 2:
            variance = (1 - schedule.get_alpha_bar(STEPS[index + 1])) / (1 - bar) * (1 - alpha)
            clean += variance.sqrt() * fresh * schedule.noise_scale
        denoised: Tensor = clean.clamp(-schedule.clip, schedule.clip) if schedule.clip else clean
        return denoised


@dataclass(eq=False, slots=True)
class Job:
    """One clip to decode; any thread may read `evaluated` and set `cancelled`."""

    codes: Codes
    seed: int
    equalize: bool = True
    """Match the levels of the codec's output in 32 bands; only `tokens_to_wav` does so."""
    samples: int | None = None
    """Samples per channel; by default all. `regenerate` needs as many as its input has."""
    evaluated: int = 0
    """The number of U-Net evaluations so far."""
    cancelled: bool = False


@dataclass
class Group:
    """Jobs of equal shape that are decoded together, until they are cancelled."""

    jobs: Sequence[Job]
    latent: Tensor
    """The codec's latents of the codes, [jobs, D, frames]."""
    shape: Sequence[int]
    """Channels and samples of each clip."""
    active: list[int] = field(default_factory=list)
    """The indices of the jobs that were not dropped."""

    def __post_init__(self) -> None:
        self.active = list(range(len(self.jobs)))

    def drop_cancelled(self) -> list[int]:
        """Drop cancelled jobs; return the places of the others in the previous `active`."""
        kept = [at for at, item in enumerate(self.active) if not self.jobs[item].cancelled]
        self.active = [self.active[at] for at in kept]
        return kept

    def draw_noise(self, band: int, step: int) -> Tensor:
        """Draw the noise of every active job, [active, C, T]."""
        drawn = [draw_normal(self.jobs[item].seed, band, step, self.shape) for item in self.active]
        return torch.stack(drawn).to(self.latent.device)


def draw_normal(seed: int, band: int, step: int, shape: Sequence[int]) -> Tensor:
    """Draw normal noise that depends only on the arguments; step 0 is the initial noise."""
    bits = np.random.Philox(key=np.array([seed, band << 32 | step], np.uint64))
    return torch.from_numpy(np.random.Generator(bits).standard_normal(shape, np.float32))


class Diffusion:
    """The bands of a checkpoint, with the codec that they were trained on."""

    def __init__(self, bands: Sequence[Band], codec: CompressionModel) -> None:
        self._bands = bands
        self._codec = codec
        self.device = next(codec.parameters()).device
        self.evaluations = len(bands) * (len(STEPS) - 1)
        """U-Net evaluations per clip."""
        self.done = 0
        """U-Net evaluations so far; health checks compare it over time."""

    @classmethod
    def load(
        cls, source: str, codec: str, *, device: str, filename: str = DIFFUSION_FILE
    ) -> "Diffusion":
        """Load from a multi-band diffusion file and a codec's checkpoint. Raises a CheckpointError.

        The files `mbd_comp_{2,4,8}.pt` take the first 2, 4 or 8 codebooks of EnCodec at 24 kHz.
        """
        models, processors, configs = load_diffusion(source, filename, device=device)
        bands = [
            Band.build(model, NoiseSchedule(**cfg.schedule, sample_processor=after, device=device))
            for model, after, cfg in zip(models, processors, configs, strict=True)
        ]
        loaded = load_codec(codec, device=device)
        if named := re.fullmatch(r"mbd_comp_(\d+)\.pt", filename):
            loaded.set_num_codebooks(int(named[1]))
        wanted = {int(cfg.diffusion_unet.codec_dim) for cfg in configs}
        given = loaded.decode_latent(torch.zeros(1, 1, 1, dtype=torch.long, device=device)).shape[1]
        if wanted != {given}:
            reason = f"for latents of {sorted(wanted)}, but {codec} has {given}"
            raise CheckpointMismatch(f"{source}/{filename}: {reason}")
        return cls(bands, loaded)

    @property
    def info(self) -> CodecInfo:
        """The properties of the codes that are taken and of the audio that is returned."""
        return CodecInfo(
            codebooks=self._codec.num_codebooks,
            cardinality=self._codec.cardinality,
            sample_rate=self._codec.sample_rate,
            channels=self._codec.channels,
            frame_rate=float(self._codec.frame_rate),
        )

    def generate(self, jobs: Sequence[Job]) -> list[Waveform | EngineError]:
        """Decode each job; an invalid or cancelled one yields an error and affects no other."""
        return serve_in_groups(
            jobs, self.device, reject=self._reject_job, shape=_get_shape, serve=self._decode_group
        )

    @torch.inference_mode()
    def _decode_group(self, jobs: Sequence[Job]) -> list[Waveform | EngineError]:
        stacked = np.stack([job.codes.array() for job in jobs]).astype(np.int64)
        codes = torch.from_numpy(stacked).to(self.device)
        reference, rate = self._codec.decode(codes, None), self._codec.sample_rate
        reference = reference[..., : jobs[0].samples]
        group = Group(jobs, self._codec.decode_latent(codes), reference.shape[1:])
        made = torch.zeros_like(reference)
        for number, band in enumerate(self._bands):
            current = self._denoise_band(group, number, band)
            if current is None:
                break
            made[group.active] += band.schedule.sample_processor.return_sample(current)
        clips: dict[int, Waveform | EngineError] = {}
        for item in group.active:
            clip = made[item]
            if jobs[item].equalize:
                clip = match_band_levels(clip, reference[item], rate)
            if clip.isfinite().all():
                clips[item] = Waveform.pack(clip.cpu().numpy(), rate)
            else:
                clips[item] = GenerationFailed("the model's output is not a finite number")
        cancelled = Cancelled("the caller disconnected while its clip was decoded")
        return [clips.get(item, cancelled) for item in range(len(jobs))]

    def _denoise_band(self, group: "Group", number: int, band: Band) -> Tensor | None:
        """Denoise one band of the active jobs; return None if all of them were cancelled."""
        current: Tensor = group.draw_noise(number, 0) * band.schedule.noise_scale
        for index, step in enumerate(STEPS[:-1]):
            current = current[group.drop_cancelled()]
            if not group.active:
                return None
            estimate = band.model(current, step, condition=group.latent[group.active]).sample
            fresh = group.draw_noise(number, index + 1)
            current = band.denoise_step(current, estimate, index, fresh)
            self.done += 1
            for item in group.active:
                group.jobs[item].evaluated += 1
        return current

    def _reject_job(self, job: Job) -> InvalidRequest | None:
        """Return the error for a job that this model cannot decode, or None."""
        codes, info = job.codes, self.info
        most = int(codes.frames * info.sample_rate / info.frame_rate)
        if codes.codebooks != info.codebooks:
            problem = f"{codes.codebooks} codebooks; this diffusion model takes {info.codebooks}"
        elif codes.frames < 1:
            problem = "no frames to decode"
        elif job.samples is not None and not 1 <= job.samples <= most:
            problem = f"{codes.frames} frames give 1 to {most} samples, not {job.samples}"
        elif not 0 <= codes.array().min() <= codes.array().max() < info.cardinality:
            problem = f"codes must be from 0 to {info.cardinality - 1}"
        else:
            return None
        return InvalidRequest(problem, "codes")


def _get_shape(job: Job) -> Hashable:
    return job.codes.codebooks, job.codes.frames, job.samples


def match_band_levels(made: Tensor, reference: Tensor, sample_rate: int) -> Tensor:
    """Scale each band of a clip [C, T] to the standard deviation of the reference's (`re_eq`)."""
    split = SplitBands(n_bands=EQUALIZER_BANDS, sample_rate=sample_rate).to(made.device)
    bands, wanted = split(made), split(reference)
    out = torch.zeros_like(reference)
    for band, like in zip(bands, wanted, strict=True):
        # AudioCraft divides by zero if a band is silent.
        out += band * (like.std() / band.std().clamp(min=1e-12))
    return out
