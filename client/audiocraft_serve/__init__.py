"""Python client of audiocraft-serve, a server that generates audio from text over HTTP.

`Client` and `AsyncClient` send the requests. `answers` defines what their methods return, `errors`
what they raise, and `parameters` what they accept.
"""

from audiocraft_serve.async_client import AsyncClient
from audiocraft_serve.client import Client
from audiocraft_serve.errors import AudiocraftError

__all__ = ["AsyncClient", "AudiocraftError", "Client"]
