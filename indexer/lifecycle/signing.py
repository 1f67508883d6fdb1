"""Ed25519 signatures of manifests, which hold the hash of every other file: who vouches for an exported index.

Keys are PEM files as OpenSSL makes them: `openssl genpkey -algorithm ed25519 -out key.pem` and `openssl pkey -in
key.pem -pubout -out public.pem`.  The arithmetic is that of the package cryptography, an extra: `resad[sign]`.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from resad.errors import IndexInvalid, SettingError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519


def sign(data: bytes, key_file: Path) -> bytes:
    """The signature, 64 bytes; raises `SettingError` where `key_file` holds no private key that can be used."""
    _check_installed()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise SettingError(f"{key_file} holds no private key without a passphrase, in PEM") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SettingError(f"{key_file} is no key for Ed25519 (openssl genpkey -algorithm ed25519)")
    return key.sign(data)


def check_signature(data: bytes, signature: bytes | None, key_file: Path, what: str) -> None:
    """Raise `IndexInvalid` unless `signature` is that of `data` by the private half of the key in `key_file`.

    Args:
        what: is signed, for messages.
    Raises:
        SettingError: `key_file` holds no public key that can be used.
    """
    key = _public_key(key_file)
    if signature is None:
        raise IndexInvalid(f"{what} is not signed")
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature as error:
        raise IndexInvalid(f"{what} is not signed with the key in {key_file}, or was changed since") from error


def _public_key(file: Path) -> "ed25519.Ed25519PublicKey":
    _check_installed()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except ValueError as error:
        raise SettingError(f"{file} holds no public key in PEM (openssl pkey -pubout)") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise SettingError(f"{file} is no key for Ed25519 (openssl genpkey -algorithm ed25519)")
    return key


def _check_installed() -> None:
    if find_spec("cryptography") is None:
        raise SettingError("signatures take the package cryptography: pip install 'resad[sign]'")
