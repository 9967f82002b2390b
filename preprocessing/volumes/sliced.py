"""What became of the scans of a job, as the driver knows it. Standard library only."""

from dataclasses import dataclass

from preprocessing.config import TfrecordsConfig
from preprocessing.manifest import RefusedFile


@dataclass(frozen=True, kw_only=True)
class SlicedScans:
    """Slices that were made of scans."""

    config: TfrecordsConfig
    """The job, with the folders of these slices for those of the scans."""

    left_out: tuple[RefusedFile, ...]
    """Scans without a mask, masks without a scan, and what is refused of both."""

    skipped: tuple[str, ...]
    """Files that are no part of a scan."""

    num_bytes: int
    """Size of all files of scans that have a mask, and of their masks."""
