"""The settings of each model, strict: an unknown key is an error that lists the valid ones."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class StrictModel(BaseModel):
    """A pydantic model that names the valid keys when it meets an unknown one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key '{key}'; valid keys: {valid}",
                        {
                            "key": str(key).encode(errors="backslashreplace").decode(),
                            "valid": ", ".join(cls.model_fields),
                        },
                    )
        return data


NO_DELAYS = {
    "metrics_interval_s": 1.0,
    "look_back_period_s": 3.0,
    "upscale_delay_s": 0.0,
    "downscale_delay_s": 0.0,
}
"""Serve hands on what replicas say each second, and does at once what the policy decides."""


HEALTH = {"health_check_period_s": 5.0, "health_check_timeout_s": 10.0}
"""A replica that does not answer three of Serve's checks in a row is ended: 30 to 45 s."""


class Autoscaling(StrictModel):
    """Bounds between which a deployment scales, by its work; see `deployments.scaling.policy`."""

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    start_within_s: Annotated[float, Field(gt=0)] = 10.0
    """What waits is to start within so long, once the replicas that it takes are up."""
    patience_s: Annotated[float, Field(ge=0)] = 60.0
    """For how long replicas are kept after they were needed."""
    idle_s: Annotated[float, Field(ge=0)] = 300.0
    """How long nothing may be asked for before the last one goes, where `min_replicas` is 0."""

    def build_options(self) -> dict[str, Any]:
        """Return Serve's `autoscaling_config`."""
        aim = self.model_dump(include={"start_within_s", "patience_s", "idle_s"})
        policy = {"policy_function": "deployments.scaling.policy:Backlog", "policy_kwargs": aim}
        bounds = self.model_dump(include={"min_replicas", "max_replicas"})
        return {**bounds, **NO_DELAYS, "policy": policy}

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self


class Placement(StrictModel):
    """What one deployment takes of the cluster."""

    num_cpus: Annotated[float, Field(ge=0)] = 1.0
    """CPUs a replica; also its number of compute threads, rounded down, at least one."""
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs a replica, or a fraction of one."""
    replicas: Annotated[int, Field(ge=1)] | Autoscaling = 1
    """A fixed number, or bounds for autoscaling."""
    pool: Annotated[str, Field(min_length=1)] | None = None
    """Only on nodes whose Ray label `pool` is this one."""
    spread: bool = False
    """No two replicas on one node."""
    grace_s: Annotated[float, Field(ge=0)] = 600.0
    """How long a replica that is to go may finish what it has begun: longer than any one clip."""

    @property
    def least_replicas(self) -> int:
        """The fewest replicas that run at any time."""
        replicas = self.replicas
        return replicas if isinstance(replicas, int) else replicas.min_replicas

    def build_options(self) -> dict[str, Any]:
        """Return the options for `Deployment.options`."""
        actor: dict[str, Any] = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        if self.pool:
            actor["label_selector"] = {"pool": self.pool}
        options: dict[str, Any] = {
            "ray_actor_options": actor,
            "graceful_shutdown_timeout_s": self.grace_s,
            **HEALTH,
            "max_surge_percent": 100,  # of an update: the new ones first, then the old ones go
        }
        if self.spread:
            options["max_replicas_per_node"] = 1
        if isinstance(self.replicas, Autoscaling):
            options["autoscaling_config"] = self.replicas.build_options()
        else:
            options["num_replicas"] = self.replicas
        return options


class ModelSettings(Placement):
    """What every model has."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """Its name in the API, and its deployment's."""
    checkpoint: Annotated[str, Field(min_length=1)]
    """`bundle:tiny/...`, a folder, or a hub id (`owner/name`)."""
    device: Literal["cpu", "cuda"] | None = None
    """By default `cuda` where `num_gpus` is above 0, else `cpu`."""
    license: str | None = None
    """Of the weights, as `/v1/models` states it."""

    @property
    def gpu_share(self) -> float:
        """Of its card's memory."""
        return min(self.num_gpus, 1.0) or 1.0

    @property
    def torch_device(self) -> str:
        """The device that this model runs on."""
        return self.device or ("cuda" if self.num_gpus > 0 else "cpu")


class EngineArgs(StrictModel):
    """What a language model's engine allocates once."""

    max_slots: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests decoded together, at most."""
    cache_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory for their caches; fewer slots are made where they would not fit. By default what the
    weights leave of the fraction of a GPU, and 2 GB on a CPU."""
    max_text_tokens: Annotated[int, Field(ge=8, le=4096)] = 256
    prefill_chunk: Annotated[int, Field(ge=1)] | None = None
    """Positions of prompts fed in one step; by default 16 on a CPU, 256 on a GPU."""
    cuda_graphs: bool = True
    """On a GPU, launch all of a step's kernels at once."""


OTHER_CALLS = 64
"""That a language model's replica takes beside its requests, such as those for its load."""


class TokenModelSettings(ModelSettings):
    """A language model over codec tokens."""

    dtype: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    codec: str
    """The name of the `encodec` entry that decodes its tokens."""
    frame_rate: Annotated[float, Field(gt=0)] = 50.0
    """Of that codec; all of AudioCraft's language models have 50."""
    engine: EngineArgs = EngineArgs()
    text_encoder: str | None = None
    """A hub id or folder of T5, instead of the one that the checkpoint names."""

    @property
    def least_slots(self) -> int:
        """Clips that can be decoded at once, by the fewest replicas."""
        return self.engine.max_slots * self.least_replicas

    def build_options(self) -> dict[str, Any]:
        """Return the options for `Deployment.options`."""
        slots = self.engine.max_slots
        router = {
            "request_router_class": "deployments.scaling.router:FreeSlotRouter",
            "request_router_kwargs": {"slots": slots},
        }
        # Requests without a slot wait at the ingress; other calls shall not wait for them.
        most = slots + OTHER_CALLS
        return super().build_options() | {
            "max_ongoing_requests": most,
            "request_router_config": router,
        }

    @model_validator(mode="after")
    def _check_precision_fits_device(self) -> Self:
        if self.torch_device == "cpu" and self.dtype == "float16":
            raise ValueError(
                "dtype float16 needs a GPU (num_gpus above 0); use float32, bfloat16 or int8"
            )
        if self.torch_device == "cuda" and self.dtype == "int8":
            raise ValueError("dtype int8 runs on the CPU; on a GPU use float16 or bfloat16")
        return self


class MusicGenSettings(TokenModelSettings):
    """Text to music."""

    kind: Literal["musicgen"]
    stem_separation: bool = True
    """Whether a melody model takes drums and bass out of melodies, by demucs, as AudioCraft does;
    without, it follows all that sounds."""


class AudioGenSettings(TokenModelSettings):
    """Text to sound effects and ambience."""

    kind: Literal["audiogen"]


class EnCodecSettings(ModelSettings):
    """Tokens to audio."""

    kind: Literal["encodec"]
    dtype: Literal["float32"] = "float32"
    """As AudioCraft decodes; half precision is audible (bfloat16 errs at -47 dB)."""
    stereo: bool = False
    """Code left and right apart by a mono codec, as the musicgen-stereo models want it."""


class DiffusionSettings(ModelSettings):
    """Tokens to audio by multi-band diffusion."""

    kind: Literal["mbd"]
    file: str = "mbd_musicgen_32khz.th"
    """Of the checkpoint; `mbd_comp_{2,4,8}.pt` are for EnCodec at 24 kHz."""
    codec: str
    """The name of the `encodec` entry on whose codes it was trained."""


class DiscriminatorsSettings(ModelSettings):
    """How real audio sounds."""

    kind: Literal["discriminators"]


AnyModelSettings = Annotated[
    MusicGenSettings
    | AudioGenSettings
    | EnCodecSettings
    | DiffusionSettings
    | DiscriminatorsSettings,
    Field(discriminator="kind"),
]


class RedisServer(StrictModel):
    """A Redis, 7 or later."""

    url: Annotated[str, Field(pattern=r"^(rediss?|unix)://")]
    password_env: str | None = None
    """The environment variable that holds the password."""

    @property
    def password(self) -> str | None:
        """What that variable holds. Raises ValueError where it is not set."""
        if self.password_env is None:
            return None
        if not (password := os.environ.get(self.password_env)):
            raise ValueError(f"password_env: {self.password_env} is not set; set it")
        return password


class NoTunables(StrictModel):
    """The `user_config` of a deployment in which nothing may change while it runs."""


class BatchTunables(StrictModel):
    """The `user_config` of a deployment that works in batches: changes without a restart."""

    max_batch_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds of audio that a batch holds; what is longer goes alone."""
    batch_wait_timeout_s: Annotated[float, Field(ge=0, le=1)] = 0.005
    """How long the first request of a batch waits for others."""
