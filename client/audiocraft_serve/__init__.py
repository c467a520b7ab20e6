"""The client of audiocraft-serve: text in, audio out, over HTTP.

`Client` and `AsyncClient` ask; `answers` has what they return, and `errors` what they raise.
"""

from audiocraft_serve.async_client import AsyncClient
from audiocraft_serve.client import Client
from audiocraft_serve.errors import AudiocraftError

__all__ = ["AsyncClient", "AudiocraftError", "Client"]
