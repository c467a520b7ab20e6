"""Multi-band diffusion: a codec's latents to audio, a U-Net a band (`multibanddiffusion.py`).

Each request's noise comes from its own seed, so it gets the same samples whoever shares its batch;
AudioCraft equalises over a whole batch, this over each clip alone.
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
"""Of the schedule's thousand, those that are run; the last only ends the list."""
EQUALIZER_BANDS = 32


@dataclass(frozen=True)
class Band:
    """One band's model, and how noise leaves it."""

    model: nn.Module
    schedule: NoiseSchedule
    betas: Tensor
    """Of the steps that are run, in the schedule's order."""

    @classmethod
    def build(cls, model: nn.Module, schedule: NoiseSchedule) -> "Band":
        """Thin the schedule out to `STEPS`."""
        bars = schedule.get_alpha_bar().cpu()[STEPS[::-1]]
        return cls(model, schedule, betas_from_alpha_bar(bars))

    def denoised(self, noisy: Tensor, estimate: Tensor, index: int, fresh: Tensor) -> Tensor:
        """Go from `STEPS[index]` to the next, as `NoiseSchedule.generate_subsampled` does."""
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
    """One clip to make; its caller may look at `evaluated` and set `cancelled` from any thread."""

    codes: Codes
    seed: int
    equalize: bool = True
    """Match the codec's own output in 32 bands, as `tokens_to_wav` does; `regenerate` does not."""
    samples: int | None = None
    """Of the clip, by default all of its frames'; AudioCraft's `regenerate` keeps its input's."""
    evaluated: int = 0
    """Evaluations of a U-Net so far."""
    cancelled: bool = False


@dataclass
class Group:
    """Clips of equal shape that are made together; whoever is cancelled leaves."""

    jobs: Sequence[Job]
    latent: Tensor
    """What the codec makes of their codes, [jobs, D, frames]."""
    shape: Sequence[int]
    """Channels and samples of a clip."""
    staying: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.staying = list(range(len(self.jobs)))

    def leave(self) -> list[int]:
        """Let go who is cancelled; return where those who stay were among the last."""
        kept = [at for at, item in enumerate(self.staying) if not self.jobs[item].cancelled]
        self.staying = [self.staying[at] for at in kept]
        return kept

    def noise(self, band: int, step: int) -> Tensor:
        """Draw everyone's noise."""
        drawn = [noise(self.jobs[item].seed, band, step, self.shape) for item in self.staying]
        return torch.stack(drawn).to(self.latent.device)


def noise(seed: int, band: int, step: int, shape: Sequence[int]) -> Tensor:
    """Draw normal noise that is a function of its arguments alone; step 0 is where it begins."""
    bits = np.random.Philox(key=np.array([seed, band << 32 | step], np.uint64))
    return torch.from_numpy(np.random.Generator(bits).standard_normal(shape, np.float32))


class Diffusion:
    """The bands of one checkpoint, and the codec whose codes they were trained on."""

    def __init__(self, bands: Sequence[Band], codec: CompressionModel) -> None:
        self._bands = bands
        self._codec = codec
        self.device = next(codec.parameters()).device
        self.evaluations = len(bands) * (len(STEPS) - 1)
        """Of a U-Net, for one clip."""
        self.done = 0
        """Evaluations since the start; health checks watch it grow."""

    @classmethod
    def load(
        cls, source: str, codec: str, *, device: str, filename: str = DIFFUSION_FILE
    ) -> "Diffusion":
        """Load from a multi-band diffusion file and a codec's checkpoint. Raises a CheckpointError.

        `mbd_comp_{2,4,8}.pt` are for the first 2, 4 or 8 codebooks of EnCodec at 24 kHz.
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
        """What codes it takes and what audio it gives."""
        return CodecInfo(
            codebooks=self._codec.num_codebooks,
            cardinality=self._codec.cardinality,
            sample_rate=self._codec.sample_rate,
            channels=self._codec.channels,
            frame_rate=float(self._codec.frame_rate),
        )

    def generate(self, jobs: Sequence[Job]) -> list[Waveform | EngineError]:
        """Make each clip; a bad or cancelled one yields its error and disturbs no other."""
        return serve_in_groups(
            jobs, self.device, problem=self._problem, shape=_shape, serve=self._together
        )

    @torch.inference_mode()
    def _together(self, jobs: Sequence[Job]) -> list[Waveform | EngineError]:
        stacked = np.stack([job.codes.array() for job in jobs]).astype(np.int64)
        codes = torch.from_numpy(stacked).to(self.device)
        reference, rate = self._codec.decode(codes, None), self._codec.sample_rate
        reference = reference[..., : jobs[0].samples]
        group = Group(jobs, self._codec.decode_latent(codes), reference.shape[1:])
        made = torch.zeros_like(reference)
        for number, band in enumerate(self._bands):
            current = self._denoise(group, number, band)
            if current is None:
                break
            made[group.staying] += band.schedule.sample_processor.return_sample(current)
        clips: dict[int, Waveform | EngineError] = {}
        for item in group.staying:
            clip = made[item]
            if jobs[item].equalize:
                clip = equalized(clip, reference[item], rate)
            if clip.isfinite().all():
                clips[item] = Waveform.pack(clip.cpu().numpy(), rate)
            else:
                clips[item] = GenerationFailed("the diffusion model's output is not a number")
        gone = Cancelled("the caller left while its clip was made")
        return [clips.get(item, gone) for item in range(len(jobs))]

    def _denoise(self, group: "Group", number: int, band: Band) -> Tensor | None:
        """Take the noise out of one band, for those who stay; None where nobody does."""
        current: Tensor = group.noise(number, 0) * band.schedule.noise_scale
        for index, step in enumerate(STEPS[:-1]):
            current = current[group.leave()]
            if not group.staying:
                return None
            estimate = band.model(current, step, condition=group.latent[group.staying]).sample
            current = band.denoised(current, estimate, index, group.noise(number, index + 1))
            self.done += 1
            for item in group.staying:
                group.jobs[item].evaluated += 1
        return current

    def _problem(self, job: Job) -> InvalidRequest | None:
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


def _shape(job: Job) -> Hashable:
    return job.codes.codebooks, job.codes.frames, job.samples


def equalized(made: Tensor, reference: Tensor, sample_rate: int) -> Tensor:
    """Give each band of a clip, [C, T], the deviation of the reference's (`re_eq`)."""
    split = SplitBands(n_bands=EQUALIZER_BANDS, sample_rate=sample_rate).to(made.device)
    bands, wanted = split(made), split(reference)
    out = torch.zeros_like(reference)
    for band, like in zip(bands, wanted, strict=True):
        # Where a band is silent, AudioCraft divides by nothing.
        out += band * (like.std() / band.std().clamp(min=1e-12))
    return out
