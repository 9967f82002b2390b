"""Makes what hospitals have, small and of known content: DICOM series, SEG, RTSTRUCT, NIfTI."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

INTERCEPT = -1024
SPACING_MM = (5.0, 0.8, 0.8)
"""Between slices, rows and columns."""

Hounsfield = npt.NDArray[np.int16]
Change = Callable[[int, Dataset], None]


def chest(shape: tuple[int, int, int] = (6, 24, 20), *, seed: int = 0) -> tuple[Hounsfield, Any]:
    """Gives Hounsfield units and a mask [slices, rows, columns], feet first, as different on each
    side as a chest: the right lung is larger, and a bright spine lies at the back."""
    slices, rows, columns = shape
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    hounsfield = np.full(shape, -1000)
    body = ((y - rows / 2) / (0.45 * rows)) ** 2 + ((x - columns / 2) / (0.47 * columns)) ** 2 < 1
    hounsfield[body] = 40
    right = (abs(y - 0.5 * rows) < 0.25 * rows) & (abs(x - 0.28 * columns) < 0.13 * columns)
    left = (abs(y - 0.5 * rows) < 0.2 * rows) & (abs(x - 0.72 * columns) < 0.11 * columns)
    inside = (right | left) & (z >= 1)
    hounsfield[inside] = -850
    hounsfield[(abs(x - columns / 2) < 2) & (y > 0.75 * rows) & body] = 700
    hounsfield += rng.integers(-20, 20, shape)
    return hounsfield.astype(np.int16), inside.astype(np.uint8)


def write_series(
    folder: Path,
    hounsfield: Hounsfield,
    *,
    patient_id: str = "MRN 0042",
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    origin: Sequence[float] = (-100.0, -80.0, -300.0),
    spacing: tuple[float, float, float] = SPACING_MM,
    change: Change = lambda index, header: None,
    order: Callable[[int], int] = lambda index: index,
) -> list[Path]:
    """Writes a CT series, one file for each slice of [slices, rows, columns].

    Args:
        folder: where to; is made.
        hounsfield: stacked along the normal of ``orientation``, from ``origin`` on.
        patient_id: of the header.
        orientation: ``ImageOrientationPatient``.
        origin: position of the first slice.
        spacing: between slices, rows and columns, in mm.
        change: changes the header of a slice before it is written.
        order: number in a file's name for a slice's index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    uids = generate_uid(), generate_uid(), generate_uid()
    paths = []
    for index, pixels in enumerate(hounsfield):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID = CTImageStorage
        header.SOPInstanceUID = generate_uid()
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = uids
        header.Modality = "CT"
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.PatientName, header.PatientID = "Doe^Jane", patient_id
        header.PatientBirthDate, header.PatientSex = "19500102", "F"
        header.StudyID, header.AccessionNumber = "1", ""
        header.StudyDate, header.StudyTime = "20240102", "101112"
        header.ReferringPhysicianName, header.Manufacturer = "", "Maker"
        header.SeriesNumber, header.InstanceNumber = 2, index + 1
        header.PositionReferenceIndicator = ""
        header.ImageOrientationPatient = list(orientation)
        place = np.asarray(origin, float) + index * spacing[0] * normal
        header.ImagePositionPatient = [round(float(each), 3) for each in place]
        header.PixelSpacing, header.SliceThickness = list(spacing[1:]), spacing[0]
        header.RescaleSlope, header.RescaleIntercept, header.RescaleType = 1, INTERCEPT, "HU"
        header.Rows, header.Columns = pixels.shape
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
        header.PixelRepresentation = 1
        header.PixelData = (pixels.astype(np.int16) - INTERCEPT).astype("<i2").tobytes()
        change(index, header)
        path = folder / f"{order(index):04d}.dcm"
        header.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_segmentation(
    path: Path,
    series: Sequence[Path],
    masks: dict[str, npt.NDArray[Any]],
    *,
    kind: str = "BINARY",
) -> None:
    """Writes a DICOM SEG with a segment for each mask [slices, rows, columns] of the files."""
    from pydicom import dcmread

    sources = [dcmread(each) for each in series]
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Lung,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(masks, start=1)
    ]
    segmentation = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Maker",
        manufacturer_model_name="Tests",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)


def write_outlines(
    path: Path, series: Sequence[Path], outlines: dict[str, list[list[Sequence[float]]]]
) -> None:
    """Writes an RTSTRUCT: for each structure a list of outlines, of points in mm."""
    from pydicom import dcmread

    source = dcmread(series[0], stop_before_pixels=True)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    header.Modality, header.PatientID = "RTSTRUCT", source.PatientID
    referenced = Dataset()
    referenced.SeriesInstanceUID = source.SeriesInstanceUID
    study = Dataset()
    study.RTReferencedSeriesSequence = DicomSequence([referenced])
    frame = Dataset()
    frame.RTReferencedStudySequence = DicomSequence([study])
    header.ReferencedFrameOfReferenceSequence = DicomSequence([frame])
    names, contours = [], []
    for number, (name, polygons) in enumerate(outlines.items(), start=1):
        named = Dataset()
        named.ROINumber, named.ROIName = number, name
        names.append(named)
        drawn = Dataset()
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = DicomSequence([])
        for points in polygons:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [float(value) for point in points for value in point]
            drawn.ContourSequence.append(contour)
        contours.append(drawn)
    header.StructureSetROISequence = DicomSequence(names)
    header.ROIContourSequence = DicomSequence(contours)
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)


def affine_of(
    origin: Sequence[float] = (-100.0, -80.0, -300.0),
    spacing: tuple[float, float, float] = SPACING_MM,
) -> npt.NDArray[np.float64]:
    """Gives the RAS affine of an array [columns, rows, slices] on the grid of `write_series`."""
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    affine[:3, 3] = [-origin[0], -origin[1], origin[2]]
    return affine


def write_nifti(
    path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64] | None = None
) -> None:
    """Writes [slices, rows, columns] as NIfTI, on the grid of `write_series`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array.transpose(2, 1, 0), affine_of() if affine is None else affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
