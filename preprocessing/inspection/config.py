"""The options of the verb ``inspect``; flags and fields have the same names."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_GALLERY_SLICES = 200
GALLERY_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Which dataset to look at, and how closely."""

    dataset: Path
    """Folder that ``tfrecords`` wrote."""

    gallery: Path | None = None
    """Page to write, with slices and the outlines of their masks; None: the masks are not read."""

    gallery_slices: int = DEFAULT_GALLERY_SLICES
    """At most this many slices are on the page."""

    verify: bool = False
    """Compare each shard with its hash in ``dataset.json``."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a value is out of its range, or would be ignored.
        """
        if self.gallery_slices < 1:
            raise ValueError(f"--gallery-slices is {self.gallery_slices}; expected at least 1")
        if self.gallery is None:
            if self.gallery_slices != DEFAULT_GALLERY_SLICES:
                raise ValueError(
                    f"--gallery-slices is {self.gallery_slices}, but there is no --gallery; "
                    "name the page with --gallery page.html, or leave --gallery-slices out"
                )
        elif self.gallery.suffix.lower() not in GALLERY_SUFFIXES:
            # An older file is replaced, so a slip must not cost a slice or a shard.
            raise ValueError(
                f"--gallery is {self.gallery}; expected the name of a page that ends in "
                f"{' or '.join(GALLERY_SUFFIXES)}, such as page.html"
            )
