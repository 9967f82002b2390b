"""Lungs as a DICOM SEG that points at the slices that it was made of."""

import copy
import logging
import re
import threading
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds

from serving.volumes.lungs import LEFT, NAMES, RIGHT

# They tell what they copy, and that may be a name; on workers too.
for _library in ("highdicom", "pydicom"):
    logging.getLogger(_library).setLevel(logging.ERROR)

_WARNINGS = threading.Lock()
"""Filters of warnings are those of all threads."""

_NAME = "lung-ct-segmentation"
_SERIES_NUMBER_OFFSET = 9000
_COLORS = {RIGHT: (0, 190, 255), LEFT: (255, 160, 64)}
_MAY_BE_EMPTY = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PositionReferenceIndicator",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
"""Attributes that a file has to have, though perhaps empty (type 2)."""
_DATE, _TIME = re.compile(r"\d{8}"), re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
_FORMS = {"PatientBirthDate": _DATE, "StudyDate": _DATE, "StudyTime": _TIME}
_MODIFIERS = {RIGHT: codes.SCT.Right, LEFT: codes.SCT.Left}


def make_segmentation(
    labels: npt.NDArray[np.uint8], headers: Sequence[Dataset], *, spacing_mm: float, model: str
) -> hd.seg.Segmentation:
    """Makes a DICOM SEG with a segment for each lung.

    What a header lacks and may be empty in DICOM is left empty, and so is what is no value.

    Args:
        labels: [slices, rows, columns] in the order and orientation of the source's files; labels
            as in `serving.volumes.lungs`.
        headers: of the source's files, in that order.
        spacing_mm: between slices; their thickness, where headers do not tell it.
        model: name and version of the model.

    Raises:
        ValueError: if the headers lack what a SEG needs, or there is no lung. The message tells
            nothing of what they hold.
    """
    # The library remarks on what it copies, such as names without a first name, and shows it.
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            completed = [_completed(header, spacing_mm=spacing_mm) for header in headers]
            return _make(labels, completed, model=model)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the headers of its slices lack what a SEG needs ({type(error).__name__})"
            ) from None


def _make(
    labels: npt.NDArray[np.uint8], headers: Sequence[Dataset], *, model: str
) -> hd.seg.Segmentation:
    present = [label for label in NAMES if (labels == label).any()]
    if not present:
        raise ValueError("there is no lung to write; a SEG has one segment at least")
    numbers = np.zeros(max(NAMES) + 1, np.uint8)
    numbers[present] = np.arange(1, len(present) + 1)
    software = f"{_NAME} {_own_version()}"
    segmentation = hd.seg.Segmentation(
        source_images=headers,
        pixel_array=numbers[labels],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(number, label, model=model) for number, label in enumerate(present, start=1)
        ],
        series_instance_uid=generate_uid(),
        series_number=int(headers[0].get("SeriesNumber") or 0) + _SERIES_NUMBER_OFFSET,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=_NAME,
        manufacturer_model_name=model,
        software_versions=software,
        device_serial_number="0",
        content_label="LUNGS",
        content_description="Lungs, predicted; not a medical device",
    )
    segmentation.SeriesDescription = "Lungs, predicted; not for diagnosis"
    return segmentation


def _completed(header: Dataset, *, spacing_mm: float) -> Dataset:
    """Gives a header in which all is there that DICOM lets be empty, and nothing is no value."""
    completed = copy.copy(header)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in completed:
            setattr(completed, keyword, None)
    if completed.get("SliceThickness") is None:
        completed.SliceThickness = format_number_as_ds(spacing_mm)
    if completed.PatientSex not in ("M", "F", "O"):
        completed.PatientSex = None
    for keyword, form in _FORMS.items():
        if not form.fullmatch(str(completed[keyword].value or "")):
            setattr(completed, keyword, None)
    return completed


def _describe(number: int, label: int, *, model: str) -> hd.seg.SegmentDescription:
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=NAMES[label],
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=_NAME, version=model, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=hd.color.CIELabColor.from_rgb(*_COLORS.get(label, _COLORS[RIGHT])),
    )
    if label in _MODIFIERS:
        modifier = hd.sr.CodedConcept.from_code(_MODIFIERS[label])
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = DicomSequence([modifier])
    return description


def _own_version() -> str:
    try:
        return version(_NAME)
    except PackageNotFoundError:  # run from a folder of sources
        return "unknown"
