"""TensorFlow's own SavedModel loader and session, through its C API, without Python's TensorFlow.

The TensorFlow wheel carries ``libtensorflow_cc``, which exports the C API. Behind it stand the
loader and the session that TensorFlow Serving runs: the same results and the same error texts, no
interpreter lock while a model runs, and none of the seconds that ``import tensorflow`` takes.

Source: tensorflow/c/c_api.h, tf_tensor.h, tf_tstring.h of the wheel's ``include`` folder.
"""

import ctypes
import functools
import importlib.util
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from serving.protos import config_pb2, meta_graph_pb2, types_pb2
from serving.status import StatusCode, StatusError, code_of
from serving.tensors import TSTRING_BYTES, Array, numpy_dtype, type_name

logger = logging.getLogger(__name__)

_LIBRARY = "libtensorflow_cc.so.2"
_SERVE_TAG = b"serve"
_VARIABLE_OPS = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_STDERR = 2


class TensorParseError(StatusError):
    """What was fed is no tensor.

    Attributes:
        tensor_name: the feed it was meant for.
    """

    def __init__(self, code: StatusCode, message: str, *, tensor_name: str) -> None:
        """Keeps the name beside TensorFlow's own text."""
        super().__init__(code, message)
        self.tensor_name = tensor_name


class _Buffer(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p)]


class _Output(ctypes.Structure):
    _fields_ = [("operation", c_void_p), ("index", c_int)]


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "TF_NewStatus": (c_void_p, []),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewBuffer": (POINTER(_Buffer), []),
    "TF_DeleteBuffer": (None, [POINTER(_Buffer)]),
    "TF_NewGraph": (c_void_p, []),
    "TF_DeleteGraph": (None, [c_void_p]),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_DeleteSessionOptions": (None, [c_void_p]),
    "TF_SetConfig": (None, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int]
        + [c_void_p, POINTER(_Buffer), c_void_p],
    ),
    "TF_CloseSession": (None, [c_void_p, c_void_p]),
    "TF_DeleteSession": (None, [c_void_p, c_void_p]),
    "TF_SessionRun": (
        None,
        [c_void_p, POINTER(_Buffer)]
        + [POINTER(_Output), POINTER(c_void_p), c_int] * 2
        + [c_void_p, c_int, c_void_p, c_void_p],
    ),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_TensorFromProto": (None, [POINTER(_Buffer), c_void_p, c_void_p]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_StringGetDataPointer": (c_void_p, [c_void_p]),
    "TF_StringGetSize": (c_size_t, [c_void_p]),
}


class SavedModelSession:
    """One loaded SavedModel; its methods may be called from many threads at once.

    Attributes:
        signatures: the SavedModel's ``SignatureDef`` messages by name.
    """

    def __init__(self, export_dir: Path) -> None:
        """Loads a SavedModel's graph for serving, and its variables.

        Raises:
            StatusError: if TensorFlow cannot load it.
        """
        self._runs = threading.Condition()
        self._num_runs = 0
        self._is_closed = False
        with _native_stderr_kept_back():
            self._lib = _load_library()
            self._graph = self._lib.TF_NewGraph()
            try:
                self._session, meta_graph = self._load(export_dir)
            except StatusError:
                self._lib.TF_DeleteGraph(self._graph)
                raise
        self.signatures: Mapping[str, Any] = dict(meta_graph.signature_def)
        variables = export_dir / "variables" / "variables.index"
        if _has_variables(meta_graph) and not variables.is_file():
            # TensorFlow loads such a model without a word, and then every call fails.
            self.close()
            raise StatusError(
                StatusCode.NOT_FOUND, f"{variables} is missing, but the graph has variables"
            )

    def run(
        self, feeds: Mapping[str, bytes], fetches: Sequence[str], *, timeout_ms: int = 0
    ) -> list[Array]:
        """Runs the graph once.

        Args:
            feeds: serialized ``TensorProto`` by tensor name, such as ``serving_default_image:0``.
            fetches: names of the tensors to give back.
            timeout_ms: the run is cancelled after this time; 0 is no limit.

        Returns:
            One array for each fetch; strings as objects of type bytes.

        Raises:
            TensorParseError: if what is fed is no tensor.
            StatusError: with TensorFlow's own code and text.
        """
        results: Any = (c_void_p * len(fetches))()
        options = config_pb2.RunOptions(timeout_in_ms=timeout_ms).SerializeToString()
        with self._running(), ExitStack() as stack:
            inputs = (_Output * len(feeds))(*(self._endpoint(name) for name in feeds))
            outputs = (_Output * len(fetches))(*(self._endpoint(name) for name in fetches))
            values = (c_void_p * len(feeds))()
            for index, (name, proto) in enumerate(feeds.items()):
                values[index] = self._tensor(name, proto)
                stack.callback(self._lib.TF_DeleteTensor, values[index])
            with self._status() as status:
                self._lib.TF_SessionRun(
                    self._session, _buffer(options),
                    inputs, values, len(feeds),
                    outputs, results, len(fetches),
                    None, 0, None, status,
                )  # fmt: skip
            for result in results:
                stack.callback(self._lib.TF_DeleteTensor, result)
            return [self._array(result) for result in results]

    def close(self) -> None:
        """Cancels what runs, and gives the model's memory back; ``run`` fails from then on."""
        with self._runs:
            if self._is_closed:
                return
            self._is_closed = True
        with self._status() as status:
            self._lib.TF_CloseSession(self._session, status)
        with self._runs:
            self._runs.wait_for(lambda: self._num_runs == 0)
        with self._status() as status:
            self._lib.TF_DeleteSession(self._session, status)
        self._lib.TF_DeleteGraph(self._graph)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Counts a run: TensorFlow must not lose the session while it is inside of it."""
        with self._runs:
            if self._is_closed:
                raise StatusError(StatusCode.CANCELLED, "the model is closed")
            self._num_runs += 1
        try:
            yield
        finally:
            with self._runs:
                self._num_runs -= 1
                self._runs.notify_all()

    def _load(self, export_dir: Path) -> tuple[int, Any]:
        # By default TensorFlow takes the whole memory of a GPU; a development server shares it.
        config = config_pb2.ConfigProto(gpu_options={"allow_growth": True}).SerializeToString()
        with ExitStack() as stack:
            options = self._lib.TF_NewSessionOptions()
            stack.callback(self._lib.TF_DeleteSessionOptions, options)
            buffer = self._lib.TF_NewBuffer()
            stack.callback(self._lib.TF_DeleteBuffer, buffer)
            with self._status() as status:
                self._lib.TF_SetConfig(options, config, len(config), status)
            with self._status() as status:
                session = self._lib.TF_LoadSessionFromSavedModel(
                    options, None, os.fsencode(export_dir), (c_char_p * 1)(_SERVE_TAG), 1,
                    self._graph, buffer, status,
                )  # fmt: skip
            data = ctypes.string_at(buffer.contents.data, buffer.contents.length)
        return session, meta_graph_pb2.MetaGraphDef.FromString(data)

    def _endpoint(self, name: str) -> _Output:
        operation, _, index = name.partition(":")
        pointer = self._lib.TF_GraphOperationByName(self._graph, operation.encode())
        if not pointer:
            raise StatusError(StatusCode.INVALID_ARGUMENT, f"the graph has no tensor {name!r}")
        return _Output(pointer, int(index or 0))

    def _tensor(self, name: str, proto: bytes) -> int:
        # The C API reads a TensorProto into a tensor that exists already: any scalar will do.
        tensor: int = self._lib.TF_AllocateTensor(types_pb2.DT_UINT8, None, 0, 1)
        try:
            with self._status() as status:
                self._lib.TF_TensorFromProto(_buffer(proto), tensor, status)
        except StatusError as error:
            self._lib.TF_DeleteTensor(tensor)
            raise TensorParseError(error.code, error.message, tensor_name=name) from error
        return tensor

    def _array(self, tensor: int) -> Array:
        lib = self._lib
        shape = [lib.TF_Dim(tensor, axis) for axis in range(lib.TF_NumDims(tensor))]
        data_type = lib.TF_TensorType(tensor)
        if data_type == types_pb2.DT_STRING:
            return self._strings(lib.TF_TensorData(tensor), shape)
        try:
            dtype = numpy_dtype(data_type)
        except ValueError as error:
            raise StatusError(StatusCode.UNIMPLEMENTED, str(error)) from error
        data = ctypes.string_at(lib.TF_TensorData(tensor), lib.TF_TensorByteSize(tensor))
        return np.frombuffer(data, dtype).reshape(shape)

    def _strings(self, address: int, shape: list[int]) -> Array:
        array = np.empty(shape, dtype=object)
        for index in range(array.size):
            item = address + index * TSTRING_BYTES
            array.flat[index] = ctypes.string_at(
                self._lib.TF_StringGetDataPointer(item), self._lib.TF_StringGetSize(item)
            )
        return array

    @contextmanager
    def _status(self) -> Iterator[int]:
        """Gives a fresh status, and raises what a call left in it."""
        status = self._lib.TF_NewStatus()
        try:
            yield status
            code = self._lib.TF_GetCode(status)
            if code:
                message = self._lib.TF_Message(status).decode("utf-8", "replace")
                raise StatusError(code_of(code), message)
        finally:
            self._lib.TF_DeleteStatus(status)


def describe_signatures(signatures: Mapping[str, Any]) -> list[str]:
    """Gives one line for each signature of a SavedModel: what goes in, and what comes out."""
    lines = []
    width = max(len(name) for name in signatures)
    for name, signature in sorted(signatures.items()):
        if name.startswith("__"):  # TensorFlow's own, such as __saved_model_init_op
            continue
        inputs, outputs = (
            ", ".join(f"{key} {_tensor_type(info)}" for key, info in sorted(tensors.items()))
            for tensors in (signature.inputs, signature.outputs)
        )
        lines.append(f"{name:{width}}  {inputs} -> {outputs}")
    return lines


def _tensor_type(info: Any) -> str:
    shape = info.tensor_shape
    sizes = ["?" if dim.size < 0 else str(dim.size) for dim in shape.dim]
    return f"{type_name(info.dtype)}[{','.join(sizes)}]"


@functools.cache
def _load_library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("tensorflow")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise StatusError(
            StatusCode.NOT_FOUND,
            "the package tensorflow is not installed; install the `serving` extra",
        )
    try:
        library = ctypes.CDLL(str(Path(folders[0]) / _LIBRARY))
    except OSError as error:
        raise StatusError(
            StatusCode.NOT_FOUND, f"TensorFlow's library cannot be loaded: {error}"
        ) from error
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def _native_stderr_kept_back() -> Iterator[None]:
    """Keeps TensorFlow's start-up chatter off the terminal; it goes to the debug log.

    It is written by native code before any log level can be set, speaks of CUDA failures on every
    computer without a GPU, and what matters comes back in a status anyway.
    """
    saved = os.dup(_STDERR)
    try:
        with tempfile.TemporaryFile() as kept:
            os.dup2(kept.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(saved, _STDERR)
                kept.seek(0)
                for line in kept.read().decode("utf-8", "replace").splitlines():
                    logger.debug("TensorFlow: %s", line)
    finally:
        os.close(saved)


def _buffer(data: bytes) -> _Buffer:
    """Wraps bytes without copying them; the caller keeps them alive during the call."""
    return _Buffer(ctypes.cast(c_char_p(data), c_void_p), len(data), None)


def _has_variables(meta_graph: Any) -> bool:
    return any(node.op in _VARIABLE_OPS for node in meta_graph.graph_def.node)
