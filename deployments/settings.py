"""Defines the settings of each model; an unknown key is an error that lists the valid keys."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class StrictModel(BaseModel):
    """A pydantic model whose error for an unknown key lists the valid keys."""

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
"""Serve collects the reports each second, and applies the policy's decision immediately."""


HEALTH = {"health_check_period_s": 5.0, "health_check_timeout_s": 10.0}
"""Serve stops a replica after three failed health checks in a row, which takes 30 to 45 s."""


class Autoscaling(StrictModel):
    """The bounds and targets of `deployments.scaling.policy` for one deployment."""

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    start_within_s: Annotated[float, Field(gt=0)] = 10.0
    """The time in which waiting requests shall start, once the needed replicas are up."""
    patience_s: Annotated[float, Field(ge=0)] = 60.0
    """How long replicas are kept after they were needed."""
    idle_s: Annotated[float, Field(ge=0)] = 300.0
    """The idle time after which the last replica is removed, if `min_replicas` is 0."""

    def build_options(self) -> dict[str, Any]:
        """Return Serve's `autoscaling_config`."""
        targets = self.model_dump(include={"start_within_s", "patience_s", "idle_s"})
        policy = {"policy_function": "deployments.scaling.policy:Backlog", "policy_kwargs": targets}
        bounds = self.model_dump(include={"min_replicas", "max_replicas"})
        return {**bounds, **NO_DELAYS, "policy": policy}

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self


class Placement(StrictModel):
    """The resources of one deployment in the cluster."""

    num_cpus: Annotated[float, Field(ge=0)] = 1.0
    """CPUs per replica. Rounded down, but at least 1, it is also the number of compute threads."""
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs per replica, or a fraction of one GPU."""
    replicas: Annotated[int, Field(ge=1)] | Autoscaling = 1
    """A fixed number of replicas, or bounds for autoscaling."""
    pool: Annotated[str, Field(min_length=1)] | None = None
    """The Ray label `pool` of the nodes that may run the replicas; None: any node."""
    spread: bool = False
    """Whether each node runs at most one of the replicas."""
    grace_s: Annotated[float, Field(ge=0)] = 600.0
    """How long a stopping replica may finish running requests: longer than any one clip."""

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
            "max_surge_percent": 100,  # an update starts all new replicas first
        }
        if self.spread:
            options["max_replicas_per_node"] = 1
        if isinstance(self.replicas, Autoscaling):
            options["autoscaling_config"] = self.replicas.build_options()
        else:
            options["num_replicas"] = self.replicas
        return options


class ModelSettings(Placement):
    """The settings of every model."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """The name of the model in the API and of its deployment."""
    checkpoint: Annotated[str, Field(min_length=1)]
    """The checkpoint as `bundle:tiny/...`, a folder or a hub id (`owner/name`)."""
    device: Literal["cpu", "cuda"] | None = None
    """The device; by default `cuda` if `num_gpus` is above 0, else `cpu`."""
    license: str | None = None
    """The license of the weights, as `/v1/models` shows it."""

    @property
    def gpu_share(self) -> float:
        """The share of a GPU's memory that the model may use, above 0 and at most 1."""
        return min(self.num_gpus, 1.0) or 1.0

    @property
    def torch_device(self) -> str:
        """The PyTorch device that this model runs on."""
        return self.device or ("cuda" if self.num_gpus > 0 else "cpu")


class EngineArgs(StrictModel):
    """The settings of a token model's engine, which allocates its memory once."""

    max_slots: Annotated[int, Field(ge=1, le=1024)] = 32
    """The most requests that are decoded together."""
    cache_gb: Annotated[float, Field(gt=0)] | None = None
    """The memory for the caches in GB; if it is too small for all slots, there are fewer. Default:
    the memory of the GPU share without the weights, and 2 GB on a CPU."""
    max_text_tokens: Annotated[int, Field(ge=8, le=4096)] = 256
    prefill_chunk: Annotated[int, Field(ge=1)] | None = None
    """The most prompt positions in one step; by default 16 on a CPU and 256 on a GPU."""
    cuda_graphs: bool = True
    """Whether a GPU runs each step as one captured graph."""


Role = Literal["music", "sound"]
REPORTING = {"request_routing_stats_period_s": 1.0}
"""Serve hands the capacity that replicas report to the ingresses each second."""
OTHER_CALLS = 64
"""The most calls without a slot, such as `load`, that a token model's replica accepts."""


class TokenModelSettings(ModelSettings):
    """The settings of a language model over codec tokens."""

    dtype: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    role: Role
    """What the model makes. Where a request names no model, its route picks one by this."""
    codec: str
    """The name of the `encodec` entry that decodes the tokens."""
    frame_rate: Annotated[float, Field(gt=0)] = 50.0
    """The frames per second of that codec; all of AudioCraft's language models use 50."""
    engine: EngineArgs = EngineArgs()
    text_encoder: str | None = None
    """The hub id or folder of a T5 that replaces the one of the checkpoint."""

    def build_options(self) -> dict[str, Any]:
        """Return the options for `Deployment.options`."""
        slots = self.engine.max_slots
        router = REPORTING | {
            "request_router_class": "deployments.scaling.router:FreeSlotRouter",
            "request_router_kwargs": {"slots": slots},
        }
        # Requests without a slot wait at the ingress, and other calls must not wait for them.
        return super().build_options() | {
            "max_ongoing_requests": slots + OTHER_CALLS,
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
    """The settings of a MusicGen model, which turns text into music."""

    kind: Literal["musicgen"]
    role: Role = "music"
    stem_separation: bool = True
    """Whether a melody model removes drums and bass from melodies with demucs, as AudioCraft does;
    without it, the model follows the whole mix."""


class AudioGenSettings(TokenModelSettings):
    """The settings of an AudioGen model, which turns text into sound effects and ambience."""

    kind: Literal["audiogen"]
    role: Role = "sound"


class BatchedModelSettings(ModelSettings):
    """The settings of a model that works in dynamic batches."""

    def build_options(self) -> dict[str, Any]:
        """Return the options for `Deployment.options`."""
        router = {"request_router_class": "deployments.scaling.router:ReportingRouter"}
        return super().build_options() | {"request_router_config": REPORTING | router}


class EnCodecSettings(BatchedModelSettings):
    """The settings of an EnCodec model, which turns tokens into audio and back."""

    kind: Literal["encodec"]
    dtype: Literal["float32"] = "float32"
    """AudioCraft's precision; half precision is audible (the error of bfloat16 is -47 dB)."""
    stereo: bool = False
    """Whether a mono codec codes left and right separately, as musicgen-stereo models need it."""


class DiffusionSettings(BatchedModelSettings):
    """The settings of multi-band diffusion, which turns tokens into audio."""

    kind: Literal["mbd"]
    file: str = "mbd_musicgen_32khz.th"
    """The file in the checkpoint; `mbd_comp_{2,4,8}.pt` are for EnCodec at 24 kHz."""
    codec: str
    """The name of the `encodec` entry whose codes the model was trained on."""


class DiscriminatorsSettings(BatchedModelSettings):
    """The settings of the discriminators, which score how real audio sounds."""

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
    """The address of a Redis server of version 7 or later."""

    url: Annotated[str, Field(pattern=r"^(rediss?|unix)://")]
    password_env: str | None = None
    """The environment variable that holds the password."""
    prefix: Annotated[str, Field(pattern=r"^[\w.:-]+$")] = "audiocraft"
    """The beginning of all keys; deployments that share a database need different ones."""

    @property
    def key_prefix(self) -> str:
        """The prefix as a hash tag, which keeps all keys on one node of a Redis cluster."""
        return f"{{{self.prefix}}}"

    @property
    def password(self) -> str | None:
        """The value of that variable. Raises ValueError if it is not set."""
        if self.password_env is None:
            return None
        if not (password := os.environ.get(self.password_env)):
            raise ValueError(f"password_env: {self.password_env} is not set; set it")
        return password


class NoTunables(StrictModel):
    """The empty `user_config` of a deployment without tunables."""


class BatchTunables(StrictModel):
    """The `user_config` of a batched deployment, which may change without a restart."""

    max_batch_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """The most seconds of audio in a batch; a longer item runs alone."""
    batch_wait_timeout_s: Annotated[float, Field(ge=0, le=1)] = 0.005
    """How long the first request of a batch waits for others, in seconds."""
