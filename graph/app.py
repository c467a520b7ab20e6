"""The application: `import_path: graph.app:build` in a Ray Serve file."""

from ray.serve import Application, Deployment

from deployments.audiogen import AudioGen
from deployments.encodec import EnCodec
from deployments.musicgen import MusicGen
from graph.ingress import Ingress
from graph.settings import INGRESS, AppArgs

DEPLOYMENTS: dict[str, Deployment] = {
    "musicgen": MusicGen,
    "audiogen": AudioGen,
    "encodec": EnCodec,
    INGRESS: Ingress,
}


def build(args: AppArgs) -> Application:
    """Bind one deployment per model, and the ingress that composes them."""
    handles = {
        model.name: DEPLOYMENTS[model.kind].options(name=model.name, **model.options()).bind(model)
        for model in args.models
    }
    return DEPLOYMENTS[INGRESS].options(**args.ingress.options()).bind(args.models, handles)
