"""Lungs as a DICOM SEG that points at the slices that it was made of."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from serving.volumes.lungs import LEFT, NAMES, RIGHT

_NAME = "lung-ct-segmentation"
_SERIES_NUMBER_OFFSET = 9000
_COLORS = {RIGHT: (0, 190, 255), LEFT: (255, 160, 64)}
_MODIFIERS = {RIGHT: codes.SCT.Right, LEFT: codes.SCT.Left}


def make_segmentation(
    labels: npt.NDArray[np.uint8], headers: Sequence[Dataset], *, model: str
) -> hd.seg.Segmentation:
    """Makes a DICOM SEG with a segment for each lung.

    Args:
        labels: [slices, rows, columns] in the order and orientation of the source's files; labels
            as in `serving.volumes.lungs`.
        headers: of the source's files, in that order.
        model: name and version of the model.

    Raises:
        ValueError: if the headers lack what a SEG needs, or there is no lung.
    """
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
