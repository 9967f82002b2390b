"""What one slice and its mask are, wherever they stand on the road.

This is a contract: ``trainer`` and ``serving`` read it too. Standard library only.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The pixels of a record: one axial CT slice and its lung mask.

    A record keeps a slice at the size that it came with; ``trainer`` scales it to the size of its
    model.
    """

    channels: int = 1
    """Number of channels; CT slices are grayscale."""

    dtype: str = "uint8"
    """Type of a gray value as stored."""

    gray_min: int = 0
    """The darkest gray value."""

    gray_max: int = 255
    """The brightest gray value. No Hounsfield unit: rescale slope and intercept are gone."""

    background_label: int = 0
    """Label of a mask pixel outside of the lungs."""

    lung_label: int = 1
    """Label of a mask pixel inside of the lungs, as stored in a record."""


IMAGE_SPEC = ImageSpec()
"""The one specification that this version of the project writes and reads."""

MAX_PIXELS = 4096 * 4096
"""A slice with more pixels than this is refused before it is decoded (decompression bombs)."""

MASK_FILE_FOREGROUND = 255
"""Gray value of lung in a mask *file*, as read and as written; 0 is background."""

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""Names of NIfTI files."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Names of DICOM files, where they have one at all."""

DICOM_MAGIC = b"DICM"
DICOM_MAGIC_OFFSET = 128
"""What a DICOM file has at which byte."""

READ_AUTO = "auto"
READ_SLICES = "slices"
READ_VOLUMES = "volumes"
READ_CHOICES = (READ_AUTO, READ_SLICES, READ_VOLUMES)
"""What inputs are read as: pictures of slices, or volumes of DICOM and NIfTI."""

DEFAULT_RUNNER = "FnApiRunner"
"""Beam's name of the engine that runs in this process, on all cores."""

TRAIN_SPLIT = "train"
VALIDATION_SPLIT = "validation"
SPLITS = (TRAIN_SPLIT, VALIDATION_SPLIT)
"""Names of the splits, in the order in which they are written and shown."""
