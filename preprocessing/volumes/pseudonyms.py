"""Names for patients and series that tell nobody who they are.

A patient id has few digits: whoever knows how it was hashed could try all of them. So a secret goes
into the hash, the salt. The same salt gives the same names; without it, nobody can undo them.

Source: RFC 2104 (HMAC).
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from preprocessing.errors import PreprocessingError

_SALT_BYTES = 32
_NUM_DIGITS = 12


def read_or_make_salt(path: Path) -> bytes:
    """Reads the salt of a file; where there is none, draws one and writes it for its owner only.

    Raises:
        PreprocessingError: if the file holds no salt, or cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            text = path.read_text(encoding="utf-8").strip()
        else:
            text = secrets.token_hex(_SALT_BYTES)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{text}\n")
                file.flush()
                os.fsync(file.fileno())
    except (OSError, UnicodeDecodeError) as error:
        raise PreprocessingError(
            f"the salt of pseudonyms, {path}, cannot be read or made: {error}; give another "
            "--salt-file"
        ) from error
    if len(text) < _SALT_BYTES:
        raise PreprocessingError(
            f"the salt of pseudonyms, {path}, has {len(text)} characters; expected at least "
            f"{_SALT_BYTES}; remove the file, and a new one is made"
        )
    return text.encode()


def pseudonym(kind: str, identifier: str, *, salt: bytes) -> str:
    """Gives a name such as ``patient-3f9a2c71e04b``.

    Args:
        kind: what it names, such as ``patient``.
        identifier: what nobody is to know.
        salt: from `read_or_make_salt`.
    """
    digest = hmac.new(salt, f"{kind}:{identifier}".encode(), hashlib.sha256).hexdigest()
    return f"{kind}-{digest[:_NUM_DIGITS]}"
