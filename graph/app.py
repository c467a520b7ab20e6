"""Builds the application: `import_path: graph.app:build` in a Ray Serve file."""

from ray.serve import Application, Deployment

from api.ingress import Ingress
from deployments.audiogen import AudioGen
from deployments.discriminators import Discriminators
from deployments.encodec import EnCodec
from deployments.ledger import Ledger
from deployments.mbd import MultiBandDiffusion
from deployments.media import Media
from deployments.musicgen import MusicGen
from deployments.settings import AnyModelSettings, DiffusionSettings, RedisServer
from graph.settings import INGRESS, LEDGER, MEDIA, AppArgs

DEPLOYMENTS: dict[str, Deployment] = {
    "musicgen": MusicGen,
    "audiogen": AudioGen,
    "encodec": EnCodec,
    "mbd": MultiBandDiffusion,
    "discriminators": Discriminators,
    MEDIA: Media,
    LEDGER: Ledger,
    INGRESS: Ingress,
}


LEDGER_CPUS = 0.05
LEDGER_OPTIONS = {"ray_actor_options": {"num_cpus": LEDGER_CPUS}}


def build(args: AppArgs) -> Application:
    """Bind a deployment for each model, for uploads and for the ledger, and the ingress."""
    checkpoints = {model.name: model.checkpoint for model in args.models}

    def bind_model(model: AnyModelSettings) -> Application:
        deployment = DEPLOYMENTS[model.kind].options(name=model.name, **model.build_options())
        if isinstance(model, DiffusionSettings):
            return deployment.bind(model, checkpoints[model.codec])
        return deployment.bind(model)

    handles = {model.name: bind_model(model) for model in args.models}
    handles[MEDIA] = DEPLOYMENTS[MEDIA].options(name=MEDIA, **args.media.build_options()).bind()
    store = args.ingress.jobs.store
    redis = store if isinstance(store, RedisServer) else None
    handles[LEDGER] = DEPLOYMENTS[LEDGER].options(name=LEDGER, **LEDGER_OPTIONS).bind(redis)
    ingress = DEPLOYMENTS[INGRESS].options(**args.ingress.build_options())
    return ingress.bind(args.models, handles, args.ingress)
