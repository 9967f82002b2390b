"""Configuration of the commands of this stage; every field is a flag."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocessing.spec import DEFAULT_RUNNER, READ_AUTO, READ_CHOICES
from preprocessing.volumes.windowing import Window
from trainer.signature import (
    ARRAY_SIGNATURE,
    DEFAULT_MODEL_NAME,
    ENCODED_SIGNATURE,
)
from trainer.test_time import DEFAULT_FLIPS, DEFAULT_POSTPROCESS, NO_FLIPS, check_flips

DEFAULT_TIMEOUT_S = 30.0
MAX_TIMEOUT_S = 86400.0
LARGEST_PORT = 65535
MAX_WINDOW = 256
MAX_UPLOAD_MIB = 1024

SENT_SIGNATURES = (ARRAY_SIGNATURE.name, ENCODED_SIGNATURE.name)
"""What the client sends; the third signature takes the same pixels in four times the bytes."""

MASK_FORMATS = ("png", "npy", "rle")
"""``png``: 255 is lung; ``npy``: uint8, 1 is lung; ``rle``: JSON, run lengths as COCO has them."""

_TARGET = re.compile(r"\S+:\d{1,5}|unix:\S+")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What the embedded server serves, and where it listens.

    The names are those of ``tensorflow_model_server``.
    """

    model_base_path: Path | None = None
    """Folder with one sub-folder for each version of the model, named by a number."""

    model_name: str = DEFAULT_MODEL_NAME
    """``PredictRequest.model_spec.name`` under which the model is served."""

    model_config_file: Path | None = None
    """``ModelServerConfig`` as text, with several models, their policies and labels; instead of
    those two."""

    port: int = 8500
    """Port for gRPC; 0 takes a free one."""

    rest_api_port: int = 0
    """Port for REST; 0 switches REST off."""

    bind_address: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is open to the network, without any authentication."""

    file_system_poll_wait_seconds: float = 1.0
    """Seconds between two looks for new versions; 0 or less looks once."""

    allow_version_labels_for_unavailable_models: bool = False
    """Whether a label may name a version that is not loaded yet, as all are not at the start."""

    ssl_config_file: Path | None = None
    """``SSLConfig`` as text, with key, certificate and authority as PEM text: gRPC over TLS."""

    monitoring_config_file: Path | None = None
    """``MonitoringConfig`` as text, which switches metrics for Prometheus on, at the REST port."""

    enable_grpc_healthcheck_service: bool = False
    """Whether ``grpc.health.v1.Health`` answers, which Kubernetes' gRPC probes ask."""

    enable_batching: bool = False
    """Taken, and told to do nothing here: each request runs by itself."""

    batching_parameters_file: Path | None = None
    """The same."""

    allow_reload_config: bool = False
    """Whether clients may have other models served: whoever reaches the port could load any path.
    TensorFlow Serving has no such flag, and always allows it."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a name is empty, a port is out of range, or there is not one source of
                models.
        """
        if (self.model_base_path is None) == (self.model_config_file is None):
            raise ValueError("give --model_base_path or --model_config_file, one of them")
        _check_model_name("--model_name", self.model_name)
        if self.monitoring_config_file and not self.rest_api_port:
            raise ValueError(
                "--monitoring_config_file needs --rest_api_port: metrics are told there"
            )
        if not self.bind_address:
            raise ValueError("--bind_address is empty; expected an address such as 127.0.0.1")
        for flag, port in (("--port", self.port), ("--rest_api_port", self.rest_api_port)):
            if not 0 <= port <= LARGEST_PORT:
                raise ValueError(f"{flag} is {port}; expected 0 to {LARGEST_PORT}")
        if self.port and self.port == self.rest_api_port:
            raise ValueError(
                f"--port and --rest_api_port are both {self.port}; give REST another port"
            )


@dataclass(frozen=True, kw_only=True)
class CallConfig:
    """Which model is asked, where, and what is done around it."""

    target: str = "localhost:8500"
    """HOST:PORT of the server's gRPC endpoint."""

    model_name: str = DEFAULT_MODEL_NAME
    """Name under which the server serves the model."""

    model_version: int | None = None
    """Version to ask for; None is the latest that the server has."""

    model_label: str | None = None
    """Label of the version to ask for, instead of its number."""

    flips: str | None = None
    """Which flips of a slice are segmented too and averaged: a name in ``FLIP_SETS``; None:
    ``DEFAULT_FLIPS``, or no flips with the signature ``encoded``, whose masks have no mean."""

    postprocess: bool = DEFAULT_POSTPROCESS
    """Clean masks: drop specks and open air, fill small holes."""

    timeout_s: float = DEFAULT_TIMEOUT_S
    """Seconds for each slice, retries included."""

    wait_for_ready: bool = False
    """Wait that long for a server that is not there yet, instead of ending at once."""

    tls: bool = False
    """Call with TLS; any of the four below says so too."""

    tls_ca: Path | None = None
    """Certificates, as PEM, of the authorities to trust; None: those that gRPC brings."""

    tls_certificate: Path | None = None
    """Certificates of the client, as PEM, for servers that ask who calls."""

    tls_key: Path | None = None
    """Its private key, as PEM."""

    tls_server_name: str | None = None
    """Name in the server's certificate, where that is not the host of the target."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a value cannot work.
        """
        _check_model_name("--model-name", self.model_name)
        check_target(self.target)
        if not 0 < self.timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(
                f"--timeout-s is {self.timeout_s}; expected seconds above 0, and at most "
                f"{MAX_TIMEOUT_S:g}, which is a day"
            )
        check_model_choice(self.model_version, self.model_label)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError(
                "--tls-certificate and --tls-key belong together; give both, or neither"
            )
        check_flips(self.flip_set)

    @property
    def flip_set(self) -> str:
        """Name of the flips that are averaged, whether it was given or not."""
        return DEFAULT_FLIPS if self.flips is None else self.flips


@dataclass(frozen=True, kw_only=True)
class VolumeConfig(CallConfig):
    """How slices and volumes are told apart, read, and shown."""

    overlays: bool = True
    """Whether to draw pictures of the results."""

    read: str = READ_AUTO
    """``slices``, ``volumes`` (DICOM and NIfTI), or ``auto``: what the inputs are."""

    window_level_hu: float = Window.level_hu
    """Of volumes: center of the window that slices are looked at through, in Hounsfield units; that
    of the model's training."""

    window_width_hu: float = Window.width_hu
    """Of volumes: width of that window, in Hounsfield units."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a value cannot work.
        """
        super().__post_init__()
        if self.read not in READ_CHOICES:
            raise ValueError(f"--read is {self.read!r}; expected {' or '.join(READ_CHOICES)}")
        _ = self.hu_window

    @property
    def hu_window(self) -> Window:
        """The window that slices of volumes are looked at through."""
        return Window(self.window_level_hu, self.window_width_hu)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(VolumeConfig):
    """Which slices get masks, from which server, and where the masks go."""

    inputs: Sequence[Path]
    """Slices, folders that are searched through for slices, and patterns such as ``P1/*.bmp``; or
    folders of DICOM series, and NIfTI volumes."""

    out: Path
    """Folder for masks, overlays and the summary."""

    signature: str = ARRAY_SIGNATURE.name
    """``serving_default`` sends pixels, ``encoded`` sends the file's own bytes."""

    window: int = 4
    """Slices that are under way at the same time."""

    masks_as: Sequence[str] = (MASK_FORMATS[0],)
    """Files to write for each mask."""

    resume: bool = True
    """Skip slices or scans that an earlier run into the same folder has finished."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a value cannot work.
        """
        super().__post_init__()
        if not 1 <= self.window <= MAX_WINDOW:
            raise ValueError(f"--window is {self.window}; expected 1 to {MAX_WINDOW}")
        if not self.masks_as or not set(self.masks_as) <= set(MASK_FORMATS):
            raise ValueError(
                f"--masks-as is {' '.join(self.masks_as)!r}; expected some of "
                f"{' '.join(MASK_FORMATS)}"
            )
        if self.signature not in SENT_SIGNATURES:
            raise ValueError(
                f"--signature is {self.signature!r}; expected one of {list(SENT_SIGNATURES)}"
            )
        if self.flip_set != NO_FLIPS and self.signature == ENCODED_SIGNATURE.name:
            raise ValueError(
                f"--flips is {self.flips} and --signature {self.signature}, which answers with "
                f"masks that have no mean; expected --flips {NO_FLIPS}, or --signature "
                f"{ARRAY_SIGNATURE.name}"
            )

    @property
    def flip_set(self) -> str:
        """Name of the flips that are averaged, whether it was given or not."""
        if self.flips is None and self.signature == ENCODED_SIGNATURE.name:
            return NO_FLIPS
        return super().flip_set


@dataclass(frozen=True, kw_only=True)
class BulkConfig(VolumeConfig):
    """What a bulk job segments, with which model, on which engine."""

    inputs: str
    """Folder or bucket of slices, or of DICOM series and NIfTI volumes."""

    out: str
    """Folder or bucket for the results."""

    model: str | None = None
    """SavedModel, or folder of its versions, which the workers run themselves; None: they ask the
    server at ``target``."""

    slices_per_shard: int = 256
    """Slices that a worker reads at a time, and whose masks are in one file."""

    window: int = 4
    """Slices that a worker has under way at the server at the same time."""

    resume: bool = True
    """Leave shards alone that an earlier run has finished."""

    runner: str = DEFAULT_RUNNER
    """Beam's name of the engine."""

    beam_options: tuple[str, ...] = ()
    """Beam's own options; on the command line after ``--``."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a value cannot work.
        """
        super().__post_init__()
        if not 1 <= self.window <= MAX_WINDOW:
            raise ValueError(f"--window is {self.window}; expected 1 to {MAX_WINDOW}")
        asked = (self.model_name, self.model_version, self.model_label)
        if self.model is not None and asked != (DEFAULT_MODEL_NAME, None, None):
            raise ValueError(
                "--model-name, --model-version and --model-label are of a server; with --model "
                "give the folder of a version"
            )
        if self.slices_per_shard < 1:
            raise ValueError(f"--slices-per-shard is {self.slices_per_shard}; expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class ViewConfig(CallConfig):
    """Which server the page asks, and what it takes."""

    port: int = 8080
    """Port of the page at 127.0.0.1; 0 takes a free one."""

    max_upload_mib: int = 64
    """Largest file that is taken."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: if a value cannot work.
        """
        super().__post_init__()
        if not 0 <= self.port <= LARGEST_PORT:
            raise ValueError(f"--port is {self.port}; expected 0 to {LARGEST_PORT}")
        if not 1 <= self.max_upload_mib <= MAX_UPLOAD_MIB:
            raise ValueError(
                f"--max-upload-mib is {self.max_upload_mib}; expected 1 to {MAX_UPLOAD_MIB}"
            )


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of the whole road: small enough for a laptop without a GPU."""

    out: Path
    """Folder for everything; a folder of an earlier demo is replaced."""

    images: Path | None = None
    """Folder of slices; None: phantoms are drawn."""

    masks: Path | None = None
    """Folder of masks, where ``images`` is given."""

    patient_pattern: str | None = None
    """Regular expression that reads the patient from a path; None: that of ``tfrecords``."""

    max_refused_fraction: float | None = None
    """Share of the slices that may be refused; None: that of ``tfrecords``."""

    num_patients: int = 20
    """Phantom patients."""

    slices_per_patient: int = 12
    """Slices of each phantom patient."""

    image_size: int = 128
    """Height and width that the model works at, in pixels."""

    filters: int = 16
    """Filters of the first level of the U-Net."""

    epochs: int = 20
    """Passes over the training slices, at most."""

    def __post_init__(self) -> None:
        """Checks values; each stage checks its own.

        Raises:
            ValueError: if only one of ``images`` and ``masks`` is given.
        """
        if (self.images is None) != (self.masks is None):
            given, missing = ("IMAGES", "MASKS") if self.images else ("MASKS", "IMAGES")
            raise ValueError(
                f"{given} is given without {missing}; give both folders, or none for phantoms"
            )


def host_and_port(host: str, port: int) -> str:
    """Joins both; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_target(target: str) -> None:
    """Checks the form of a target; gRPC itself would dial port 443 where none is given.

    Raises:
        ValueError: if it is neither HOST:PORT nor a socket of this computer (``unix:PATH``).
    """
    if not _TARGET.fullmatch(target):
        raise ValueError(f"the target is {target!r}; expected HOST:PORT such as localhost:8500")


def check_model_choice(model_version: int | None, model_label: str | None) -> None:
    """Checks which version of a model is asked for.

    Raises:
        ValueError: if it is no number of a version, or if there are two ways to ask.
    """
    if model_version is not None and model_version < 0:
        raise ValueError(f"--model-version is {model_version}; expected 0 or more")
    if model_version is not None and model_label is not None:
        raise ValueError(
            f"--model-version is {model_version} and --model-label {model_label!r}; give one"
        )


def _check_model_name(flag: str, model_name: str) -> None:
    if not model_name or any(character in model_name for character in "/: "):
        raise ValueError(f"{flag} is {model_name!r}; expected a name without '/', ':' and spaces")
