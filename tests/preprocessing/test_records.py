import numpy as np
import pytest
import tensorflow as tf

from preprocessing import records
from preprocessing.records import (
    ENCODINGS,
    DamagedRecordError,
    decode_example,
    encode_example,
    parse_example,
)

IMAGE = np.arange(35, dtype=np.uint8).reshape(5, 7)
MASK = (IMAGE % 3 == 0).astype(np.uint8)


def encode(**changes):
    arguments = {"image": IMAGE, "mask": MASK, "slice_id": "a/P1_z003", "patient_id": "P1"}
    return encode_example(**arguments | changes)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_slice_and_mask_come_back_equal(encoding):
    example = parse_example(encode(encoding=encoding))
    assert sorted(example) == ["image", "mask", "patient_id", "slice_id"]
    np.testing.assert_array_equal(example["image"], IMAGE[..., None])
    np.testing.assert_array_equal(example["mask"], MASK[..., None])
    assert example["image"].dtype == example["mask"].dtype == tf.uint8
    assert example["slice_id"].numpy() == b"a/P1_z003"
    assert example["patient_id"].numpy() == b"P1"


def test_bytes_are_those_of_tensorflow_and_keys_those_of_the_field():
    example = tf.train.Example.FromString(encode())
    assert example.SerializeToString(deterministic=True) == encode()
    assert sorted(example.features.feature) == [
        "image/encoded",
        "image/filename",
        "image/format",
        "image/height",
        "image/segmentation/class/encoded",
        "image/segmentation/class/format",
        "image/width",
        "patient/id",
    ]
    assert example.features.feature["image/height"].int64_list.value == [5]
    assert example.features.feature["image/width"].int64_list.value == [7]
    assert example.features.feature["image/format"].bytes_list.value == [b"png"]


def test_sizes_of_more_than_seven_bits_are_written_as_varints():
    image = np.zeros((300, 130), np.uint8)
    features = tf.train.Example.FromString(encode(image=image, mask=image)).features.feature
    assert features["image/height"].int64_list.value == [300]
    assert features["image/width"].int64_list.value == [130]


def test_names_beyond_ascii_come_back_equal():
    example = parse_example(encode(slice_id="Röntgen/ж_z1", patient_id="ж"))
    assert example["slice_id"].numpy().decode() == "Röntgen/ж_z1"
    assert example["patient_id"].numpy().decode() == "ж"


def test_records_of_both_encodings_parse_inside_of_a_dataset():
    records_of_both = [encode(encoding=encoding) for encoding in ENCODINGS]
    dataset = tf.data.Dataset.from_tensor_slices(records_of_both).map(parse_example)
    examples = list(dataset)
    assert len(examples) == 2
    for example in examples:
        np.testing.assert_array_equal(example["image"], IMAGE[..., None])
        np.testing.assert_array_equal(example["mask"], MASK[..., None])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_records_are_read_without_tensorflow(encoding):
    example = decode_example(encode(encoding=encoding))
    np.testing.assert_array_equal(example.image, IMAGE)
    np.testing.assert_array_equal(example.mask, MASK)
    assert (example.slice_id, example.patient_id) == ("a/P1_z003", "P1")


def test_raw_slice_is_stored_pixel_by_pixel():
    features = tf.train.Example.FromString(encode(encoding="raw")).features.feature
    assert features["image/encoded"].bytes_list.value == [IMAGE.tobytes()]
    assert features["image/format"].bytes_list.value == [b"raw"]
    assert features["image/segmentation/class/format"].bytes_list.value == [b"png"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image/encoded": b"\x89PNG"}, "the record cannot be decoded: is a truncated PNG"),
        ({"image/format": b"raw"}, "the record cannot be decoded: cannot reshape"),
    ],
)
def test_damaged_record_is_told(changed, message):
    example = tf.train.Example.FromString(encode())
    for key, value in changed.items():
        example.features.feature[key].bytes_list.value[:] = [value]
    with pytest.raises(DamagedRecordError, match=message):
        decode_example(example.SerializeToString())


def test_record_with_another_size_than_stated_is_told():
    example = tf.train.Example.FromString(encode())
    example.features.feature["image/height"].int64_list.value[:] = [6]
    with pytest.raises(
        DamagedRecordError, match=r"of a/P1_z003 states \[6, 7\] pixels, but its sl"
    ):
        decode_example(example.SerializeToString())


def test_record_cut_anywhere_is_told():
    serialized = encode()
    for length in range(0, len(serialized), 7):
        with pytest.raises(DamagedRecordError, match="the record"):
            decode_example(serialized[:length])


@pytest.mark.parametrize(
    "key",
    [
        records.IMAGE_ENCODED,
        records.IMAGE_FILENAME,
        records.IMAGE_FORMAT,
        records.IMAGE_HEIGHT,
        records.IMAGE_WIDTH,
        records.MASK_ENCODED,
        records.PATIENT_ID,
    ],
)
def test_missing_feature_is_an_error_and_no_empty_image(key):
    example = tf.train.Example.FromString(encode())
    del example.features.feature[key]
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"Feature: {key}"):
        parse_example(example.SerializeToString())
    with pytest.raises(DamagedRecordError, match=f"the record has no feature {key}"):
        decode_example(example.SerializeToString())


def test_stated_size_that_the_pixels_do_not_have_is_an_error():
    example = tf.train.Example.FromString(encode())
    example.features.feature["image/height"].int64_list.value[:] = [6]
    with pytest.raises(tf.errors.InvalidArgumentError, match="reshape"):
        parse_example(example.SerializeToString())


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match=r"slice a/P1_z003 has shape \[5, 7\], its mask \[4, 7\]"):
        encode(mask=MASK[:4])


def test_label_beyond_one_is_refused():
    with pytest.raises(ValueError, match="holds label 255; expected only 0 and 1"):
        encode(mask=MASK * 255)


def test_patient_of_a_record_is_read_without_its_pixels():
    pixels = np.zeros([4, 4], np.uint8)
    record = encode_example(image=pixels, mask=pixels, slice_id="a/P1_z003", patient_id="P1")
    assert records.read_patient_id(record) == "P1"


@pytest.mark.parametrize("damaged", [b"", b"\x0a\xff", b"no record"])
def test_record_that_tells_no_patient_is_refused(damaged):
    with pytest.raises(DamagedRecordError, match="the record tells no patient"):
        records.read_patient_id(damaged)
