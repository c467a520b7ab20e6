"""Serves one model from one FastAPI process, one request at a time, as a baseline.

`python -m benchmarks.under_load.naive PORT` serves the embedded music model by AudioCraft's own
generation and codec: `POST /generate/music` with `text` and `duration`, a WAV file back.
"""

import io
import sys

import soundfile
import torch
import uvicorn
from audiocraft.models.encodec import CompressionModel
from fastapi import FastAPI, Response
from pydantic import BaseModel

from benchmarks.reference import ReferenceModel
from engine.checkpoints import load_codec
from engine.params import GenerationParams


class Body(BaseModel):
    """The body of a request."""

    text: str
    duration: float
    seed: int = 0


def create_app(model: ReferenceModel, codec: CompressionModel) -> FastAPI:
    """Build the application, which blocks all other requests while it generates."""
    app = FastAPI()

    @app.post("/generate/music")
    async def generate(body: Body) -> Response:
        frames = int(body.duration * codec.frame_rate)
        params = GenerationParams(text=body.text, frames=frames, seed=body.seed)
        codes = model.generate(params, lambda: False)
        with torch.inference_mode():
            audio = codec.decode(torch.from_numpy(codes.array().copy()).long()[None])[0]
        file = io.BytesIO()
        soundfile.write(file, audio.numpy().T, codec.sample_rate, "PCM_16", format="WAV")
        return Response(file.getvalue(), media_type="audio/wav")

    return app


def main() -> None:
    """Load the models and serve until the process ends."""
    model = ReferenceModel.load("bundle:tiny/music", device="cpu", dtype="float32")
    codec = load_codec("bundle:tiny/codec", device="cpu")
    app = create_app(model, codec)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
