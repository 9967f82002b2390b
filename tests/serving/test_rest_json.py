"""Texts are TensorFlow Serving's own, as its json_tensor.cc has them."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serving.embedded.rest_json import read_request, write_answer
from serving.protos import types_pb2
from serving.status import StatusCode, StatusError

UINT8 = {"image": SimpleNamespace(dtype=types_pb2.DT_UINT8)}
FLOAT = {"x": SimpleNamespace(dtype=types_pb2.DT_FLOAT)}
STRING = {"image_bytes": SimpleNamespace(dtype=types_pb2.DT_STRING)}
COMPLEX = {"z": SimpleNamespace(dtype=types_pb2.DT_COMPLEX64)}
BOOL = {"flag": SimpleNamespace(dtype=types_pb2.DT_BOOL)}
TWO = {**UINT8, **FLOAT}


def read(document: Any, infos: dict[str, Any]) -> dict[str, np.ndarray]:
    return dict(read_request(json.dumps(document).encode(), lambda name: infos).inputs)


@pytest.mark.parametrize(
    ("document", "infos", "expected"),
    [
        ({"instances": [[1, 2], [3, 4]]}, UINT8, np.array([[1, 2], [3, 4]], np.uint8)),
        ({"instances": [1, 2.5]}, FLOAT, np.array([1, 2.5], np.float32)),
        ({"inputs": [[1], [2]]}, UINT8, np.array([[1], [2]], np.uint8)),
        ({"inputs": 7}, UINT8, np.array(7, np.uint8)),
        ({"inputs": []}, FLOAT, np.zeros(0, np.float32)),
        ({"inputs": {"image": [5]}}, UINT8, np.array([5], np.uint8)),
        ({"inputs": [300, -1]}, UINT8, np.array([44, 255], np.uint8)),
        ({"inputs": [True]}, BOOL, np.array([True])),
        ({"inputs": ["a", {"b64": "/w=="}]}, STRING, np.array([b"a", b"\xff"], object)),
        ({"inputs": {"b64": "/w=="}}, STRING, np.array(b"\xff", object)),
        ({"inputs": {"b64": " /\nw"}}, STRING, np.array(b"\xff", object)),
    ],
)
def test_values_become_an_array_of_the_type_of_the_input(
    document: Any, infos: dict[str, Any], expected: np.ndarray
) -> None:
    (array,) = read(document, infos).values()
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert np.array_equal(array, expected)


def test_several_inputs_come_as_objects() -> None:
    rows = [{"image": [1], "x": 0.5}, {"image": [2], "x": 1.5}]
    columns = {"image": [[1], [2]], "x": [0.5, 1.5]}
    for found in (read({"instances": rows}, TWO), read({"inputs": columns}, TWO)):
        assert found["image"].tolist() == [[1], [2]]
        assert found["x"].tolist() == [0.5, 1.5]


ELEMENT = "Failed to process element: "
OF_LIST = " of 'instances' list. Error: INVALID_ARGUMENT: "


@pytest.mark.parametrize(
    ("body", "infos", "message"),
    [
        (b"", UINT8, "JSON Parse error: The document is empty"),
        (b"x", UINT8, "JSON Parse error: Invalid value. at offset: 0"),
        (b'{"a" 1}', UINT8, "JSON Parse error: Missing a colon after a name of object member. at"),
        (b"\xff", UINT8, "JSON Parse error: Invalid value. at offset: 0"),
        (b"[" * 100_000, UINT8, "JSON Parse error: Invalid value. at offset: 0"),
        (b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", UINT8, ""),
        (b'{"inputs": ' + b"[" * 33 + b"]" * 33 + b"}", UINT8, "lists are 33 deep; expected at"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", UINT8, "JSON Parse error: Invalid value."),
        (b"[1]", UINT8, "JSON Value: [\n    1\n] Is not object"),
        (b"{}", UINT8, "Missing 'inputs' or 'instances' key"),
        (b'{"signature_name": 1}', UINT8, "'signature_name' key must be a string value."),
        (b'{"inputs": 1}', {}, "Failed to get input map for signature: DEFAULT"),
        (b'{"inputs": 1, "instances": 1}', UINT8, "expecting only one of 'inputs' or 'instances'"),
        (b'{"instances": 1}', UINT8, "Excepting 'instances' to be an list/array"),
        (b'{"instances": []}', UINT8, "No values in 'instances' array"),
        (b'{"instances": [1]}', TWO, "instances is a plain list, but expecting list of objects"),
        (
            b'{"instances": [1, {"image": 1}]}',
            UINT8,
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            b'{"instances": [{"image": 1}, 1]}',
            UINT8,
            "Expecting object but got list at item 1 of input list",
        ),
        (
            b'{"instances": [{"y": 1}]}',
            UINT8,
            f"{ELEMENT}0 key: y{OF_LIST}JSON object: does not have named input: y",
        ),
        (b'{"instances": [{"image": 1}]}', TWO, "} keys must be equal to: image,x"),
        (
            b'{"instances": ["a"]}',
            UINT8,
            f'{ELEMENT}0{OF_LIST}JSON Value: "a" Type: String is not of expected type: uint8',
        ),
        (
            b'{"instances": [[1], [1, 2]]}',
            UINT8,
            f"{ELEMENT}1{OF_LIST}Expecting tensor size: 1 but got: 2",
        ),
        (
            b'{"instances": [[[1, 2]], [[1], [2]]]}',
            UINT8,
            f"{ELEMENT}1{OF_LIST}Expecting shape [1,2] but got: [2,1]",
        ),
        (b'{"inputs": 1}', TWO, "inputs is a plain value/list, but expecting an object"),
        (b'{"inputs": {"x": 1}}', TWO, "Missing named input: image in 'inputs' object."),
        (b'{"inputs": [1.5]}', UINT8, "JSON Value: 1.5 Type: Number is not of expected type: u"),
        (b'{"inputs": [null]}', UINT8, "JSON Value: null Type: Null is not of expected type: u"),
        (b'{"inputs": [true]}', UINT8, "JSON Value: true Type: True is not of expected type: u"),
        (b'{"inputs": [4294967296]}', UINT8, "Type: Number is not of expected type: uint8"),
        (b'{"inputs": [[1], 2]}', UINT8, "JSON Value: 2 found at incorrect level: 2 in the JSON"),
        (b'{"inputs": [1, [2]]}', UINT8, "Encountered list at unexpected level: 1 expected < 1"),
        (
            b'{"inputs": [[1, 2], [3]]}',
            UINT8,
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        (b'{"inputs": [1e39]}', FLOAT, "to float without loss of precision."),
        (b'{"inputs": [16777216]}', FLOAT, "Cannot convert JSON value: 16777216 to float without"),
        (b'{"inputs": [{"b64": "?"}]}', STRING, "Unable to base64 decode"),
        (b'{"inputs": [{"c": "?"}]}', STRING, "not formatted correctly for base64 data"),
        (b'{"inputs": ["\\ud800"]}', STRING, "JSON Parse error: 'utf-8' codec can't encode"),
        (
            b'{"inputs": [1]}',
            COMPLEX,
            "tensors of complex64 are not handled; expected one of float",
        ),
    ],
)
def test_what_is_wrong_is_said(body: bytes, infos: dict[str, Any], message: str) -> None:
    with pytest.raises(StatusError) as caught:
        read_request(body, lambda name: infos)
    assert message in caught.value.message
    assert caught.value.code is StatusCode.INVALID_ARGUMENT


def test_float32_is_written_with_the_digits_that_it_has() -> None:
    values = np.array([0.2, 1, 1e-5, 0.1234567], np.float32)
    assert json.dumps(write_answer({"p": values}, is_rows=False)) == (
        '{"outputs": [0.2, 1.0, 1e-05, 0.1234567]}'
    )


def test_bytes_are_base64_and_text_is_text() -> None:
    strings = np.array([b"\xff"], object)
    assert write_answer({"mask_bytes": strings}, is_rows=True) == {"predictions": [{"b64": "/w=="}]}
    assert write_answer({"name": np.array([b"a"], object)}, is_rows=False) == {"outputs": ["a"]}


def test_rows_need_one_batch() -> None:
    two, three = np.zeros(2), np.zeros(3)
    with pytest.raises(StatusError, match="Tensor name: b has inconsistent batch size: 3 expe"):
        write_answer({"a": two, "b": three}, is_rows=True)
    with pytest.raises(StatusError, match="Tensor name: a has no shape information"):
        write_answer({"a": np.float64(1)}, is_rows=True)
    assert write_answer({"a": two, "b": three}, is_rows=False) == {
        "outputs": {"a": [0.0, 0.0], "b": [0.0, 0.0, 0.0]}
    }
