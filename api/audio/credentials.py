"""Adds content credentials (C2PA), a signed manifest that says how a file was made."""

import io
import logging
from collections.abc import Mapping
from pathlib import Path

import c2pa
import numpy as np

from api.audio.encoder import encode_samples
from api.audio.output import Output
from api.audio.tags import SOFTWARE, VERSION, Tags
from graph.errors import ApiError
from graph.settings import ContentCredentials

logger = logging.getLogger("ray.serve")

PURPOSES = ("1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1")
"""The purposes of a certificate that C2PA allows: e-mail protection, document signing and C2PA
claims. The library accepts the last two only if its settings name them."""
TRIAL = Tags("trial", 0, {}, None)


class CredentialsError(Exception):
    """The certificates or the key cannot be used. The message names the setting."""


class Signer:
    """Signs files with one certificate, on any thread. Only the library keeps the key."""

    def __init__(self, settings: ContentCredentials) -> None:
        """Read the key and sign a test file, without a time stamp. Raises CredentialsError."""
        chain, key = (_read_pem(settings, name) for name in ("certificates", "private_key"))
        url = str(settings.time_stamp_url) if settings.time_stamp_url else None
        try:
            with _build_context(settings.algorithm, chain, key, None) as trial:
                silence = encode_samples(np.zeros((1, 1), np.float32), 8000, Output(), None)
                _embed_manifest(silence, Output(), TRIAL, trial)
            self._context = _build_context(settings.algorithm, chain, key, url)
        except c2pa.C2paError as error:
            raise CredentialsError(
                f"content_credentials: {error}; certificates ({settings.certificates}) must "
                "begin with the certificate of the signer, which must be valid now, issued by "
                "another certificate, and for e-mail protection, document signing or C2PA; "
                f"private_key ({settings.private_key}) must be the key of the signer for algorithm "
                f"{settings.algorithm}, as PKCS#8 without a passphrase"
            ) from error
        self._media_types = frozenset(c2pa.Builder.get_supported_mime_types())

    def supports(self, output: Output) -> bool:
        """Return whether the format of a file can hold a manifest."""
        return output.kind.media_type in self._media_types

    def sign_file(self, file: bytes, output: Output, tags: Tags) -> bytes:
        """Return a whole file with its signed manifest. Raises ApiError 503."""
        try:
            return _embed_manifest(file, output, tags, self._context)
        except c2pa.C2paError as error:
            logger.error("content_credentials: %s", error)
            message = "the file's content credentials could not be signed; try again later"
            raise ApiError(503, "signing_failed", message) from error


def build_manifest(tags: Tags) -> Mapping[str, object]:
    """Build the manifest, with the terms of the C2PA specification."""
    created = {
        "action": "c2pa.created",
        "digitalSourceType": tags.source,
        "softwareAgent": {"name": tags.model},
        "parameters": tags.given,
    }
    return {
        "claim_generator_info": [{"name": SOFTWARE, "version": VERSION}],
        "title": tags.title or tags.model,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _read_pem(settings: ContentCredentials, name: str) -> bytes:
    path: Path = getattr(settings, name)
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        message = f"content_credentials.{name}: {path}: {error.strerror}"
        raise CredentialsError(f"{message}; name a PEM file that this server can read") from error


def _build_context(algorithm: str, chain: bytes, key: bytes, url: str | None) -> c2pa.Context:
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, chain, key, url))
    return c2pa.Context.from_dict({"trust": {"trust_config": "\n".join(PURPOSES)}}, signer)


def _embed_manifest(file: bytes, output: Output, tags: Tags, context: c2pa.Context) -> bytes:
    signed = io.BytesIO()
    with c2pa.Builder(build_manifest(tags), context) as builder:
        builder.sign(output.kind.media_type, io.BytesIO(file), signed)
    return signed.getvalue()
