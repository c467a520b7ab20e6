"""The application: `import_path: graph.app:build` in a Ray Serve file."""

from ray.serve import Application

from deployments.audiogen import AudioGen
from deployments.encodec import EnCodec
from deployments.musicgen import MusicGen
from graph.ingress import Ingress
from graph.settings import AppArgs

KINDS = {"musicgen": MusicGen, "audiogen": AudioGen, "encodec": EnCodec}


def build(args: AppArgs) -> Application:
    """Bind one deployment per model, and the ingress that composes them."""
    handles = {
        model.name: KINDS[model.kind].options(name=model.name, **model.options()).bind(model)
        for model in args.models
    }
    return Ingress.options(**args.ingress.options()).bind(args.models, handles)
