from pathlib import Path

import pytest

from preprocessing.errors import PreprocessingError
from preprocessing.volumes.pseudonyms import pseudonym, read_or_make_salt


def test_salt_is_drawn_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "dataset.salt"
    salt = read_or_make_salt(path)
    assert len(salt) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_make_salt(path) == salt
    assert read_or_make_salt(tmp_path / "other.salt") != salt


def test_pseudonym_depends_on_all_and_tells_nothing() -> None:
    names = {
        pseudonym(kind, identifier, salt=salt)
        for kind in ("patient", "series")
        for identifier in ("0042", "0043")
        for salt in (b"a" * 32, b"b" * 32)
    }
    assert len(names) == 8
    assert not any("004" in name.partition("-")[0] for name in names)
    # Python: hmac.new(b"a" * 32, b"patient:0042", "sha256").hexdigest()
    assert pseudonym("patient", "0042", salt=b"a" * 32) == "patient-1e6c00d11f80"


@pytest.mark.parametrize("text", ["", "short"])
def test_weak_salt_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "salt"
    path.write_text(text)
    with pytest.raises(PreprocessingError, match=f"has {len(text)} characters; expected at least"):
        read_or_make_salt(path)


def test_salt_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError, match="cannot be read or made"):
        read_or_make_salt(tmp_path)
