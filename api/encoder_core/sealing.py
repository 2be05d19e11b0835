"""
Seal secrets at rest: AES-256-GCM under a key of their own, which a key-encryption key wraps.

A sealed value is bound to its purpose by associated data, so that it opens nowhere else. Several
key-encryption keys can be loaded; the first seals, all of them open. The layout is
`version ‖ key id (8) ‖ nonce (12) ‖ wrapped key (48) ‖ nonce (12) ‖ ciphertext`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from encoder_core.errors import ConfigurationError, EncoderError

_VERSION = b"\x01"
_KEY, _ID, _NONCE, _TAG = 32, 8, 12, 16


class CannotOpen(EncoderError):
    """A sealed value was tampered with, belongs elsewhere, or its key is not loaded."""


class KeyRing:
    """The key-encryption keys of this installation."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != _KEY for key in keys):
            raise ConfigurationError("a secret key must have 32 bytes")
        self._keys = {hashlib.sha256(b"encoder-key-id" + key).digest()[:_ID]: key for key in keys}
        self._current = next(iter(self._keys))

    @classmethod
    def from_text(cls, text: str) -> KeyRing:
        """Read `ENCODER_SECRET_KEY`: base64 of 32 bytes each, separated by commas, newest first."""
        try:
            keys = [base64.b64decode(part.strip(), validate=True) for part in text.split(",")]
        except ValueError:  # binascii.Error is one, and so is what non-ASCII text raises
            keys = []
        if not keys or any(len(key) != _KEY for key in keys):
            raise ConfigurationError(
                "ENCODER_SECRET_KEY must be base64 of 32 random bytes, "
                "for example from `openssl rand -base64 32`; separate several by commas"
            )
        return cls(keys)

    def and_earlier(self, key: bytes) -> KeyRing:
        """The same ring, which opens what was sealed with this key too."""
        return KeyRing([*self._keys.values(), key])

    @property
    def current_key_id(self) -> bytes:
        return self._current

    def opens(self, sealed: bytes) -> bool:
        """Whether the key that sealed a value is loaded."""
        return key_id_of(sealed) in self._keys

    def is_current(self, sealed: bytes) -> bool:
        return key_id_of(sealed) == self._current

    def seal(self, plaintext: bytes, *, purpose: str) -> bytes:
        """`purpose` names what the value is and whose, such as `job-secrets:<uuid>`."""
        key, wrap_nonce, nonce = os.urandom(_KEY), os.urandom(_NONCE), os.urandom(_NONCE)
        aad = purpose.encode()
        wrapped = AESGCM(self._keys[self._current]).encrypt(wrap_nonce, key, aad)
        sealed = AESGCM(key).encrypt(nonce, plaintext, aad)
        return b"".join([_VERSION, self._current, wrap_nonce, wrapped, nonce, sealed])

    def open(self, sealed: bytes, *, purpose: str) -> bytes:
        """Raises CannotOpen."""
        key_id, wrap_nonce, wrapped, nonce, ciphertext = _split(sealed)
        aad = purpose.encode()
        return _decrypt(self._unwrap(key_id, wrap_nonce, wrapped, aad), nonce, ciphertext, aad)

    def rewrap(self, sealed: bytes, *, purpose: str) -> bytes:
        """The same value under the current key; only the wrapping changes."""
        key_id, wrap_nonce, wrapped, nonce, ciphertext = _split(sealed)
        aad = purpose.encode()
        key = self._unwrap(key_id, wrap_nonce, wrapped, aad)
        wrap_nonce = os.urandom(_NONCE)
        wrapped = AESGCM(self._keys[self._current]).encrypt(wrap_nonce, key, aad)
        return b"".join([_VERSION, self._current, wrap_nonce, wrapped, nonce, ciphertext])

    def fingerprints(self, message: bytes, *, purpose: str) -> tuple[bytes, ...]:
        """
        32 bytes by which to recognise a message that holds secrets, without keeping it: under the
        current key first, then under each earlier one, under which it may have been noted.

        Keyed, so that nobody who reads them can try likely messages.
        """
        prefix = b"encoder-fingerprint:" + purpose.encode()
        subkeys = [hmac.digest(key, prefix, "sha256") for key in self._keys.values()]
        return tuple(hmac.digest(subkey, message, "sha256") for subkey in subkeys)

    def _unwrap(self, key_id: bytes, nonce: bytes, wrapped: bytes, aad: bytes) -> bytes:
        if key_id not in self._keys:
            raise CannotOpen(f"the key {key_id.hex()} is not among those in ENCODER_SECRET_KEY")
        return _decrypt(self._keys[key_id], nonce, wrapped, aad)


def key_id_of(sealed: bytes) -> bytes:
    """Which key-encryption key a value was sealed with."""
    return _split(sealed)[0]


def _split(sealed: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    sizes = (_ID, _NONCE, _KEY + _TAG, _NONCE)
    if sealed[:1] != _VERSION or len(sealed) < 1 + sum(sizes) + _TAG:
        raise CannotOpen("not a sealed value")
    parts, at = [], 1
    for size in sizes:
        parts.append(sealed[at : at + size])
        at += size
    return parts[0], parts[1], parts[2], parts[3], sealed[at:]


def _decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise CannotOpen("a sealed value was changed or belongs elsewhere") from None
