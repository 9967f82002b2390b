"""Versions of models: found in folders, loaded, replaced while requests run, and unloaded.

As TensorFlow Serving does it: a new version is loaded, and has played its warm-up requests, before
the old one takes no more requests; the old one is unloaded when those under way have ended.

Source: tensorflow_serving/core/availability_preserving_policy.cc, aspired_versions_manager.cc and
sources/storage_path/file_system_storage_path_source.cc; model_servers/server_core.cc.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.embedded.metrics import Metrics
from serving.engine import SavedModelSession
from serving.errors import BrokenModelError, NoModelError
from serving.protos import get_model_status_pb2
from serving.status import StatusCode, StatusError, invalid

logger = logging.getLogger(__name__)

SAVED_MODEL = "saved_model.pb"
NUM_RETRIES = 5
RETRY_INTERVAL_S = 60.0
LARGEST_VERSION = 2**63 - 1

State = get_model_status_pb2.ModelVersionStatus


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One version of one model, ready to run."""

    name: str
    """As in ``ModelSpec.name``."""

    version: int
    """Number of its folder."""

    folder: Path
    """Where it lies."""

    session: SavedModelSession
    """Runs it."""


@dataclass(kw_only=True, eq=False)
class _Version:
    """One version, from when it was first seen until the server stops."""

    number: int
    state: int = State.LOADING
    error: StatusError | None = None
    served: ServedModel | None = None
    """What runs it, while it is available or unloading."""

    num_users: int = 0
    num_failures: int = 0
    retry_at_s: float = 0.0


@dataclass(kw_only=True, eq=False)
class _Model:
    """One model of the configuration, and what is known of its versions."""

    config: Any
    versions: dict[int, _Version] = field(default_factory=dict)

    def available(self) -> list[_Version]:
        """Highest first."""
        found = (each for each in self.versions.values() if each.state == State.AVAILABLE)
        return sorted(found, key=lambda each: each.number, reverse=True)


class ModelStore:
    """Keeps the versions that a configuration asks for loaded. May be shared between threads.

    Attributes:
        metrics: counts loads, and the requests that those who answer tell it of.
    """

    def __init__(
        self,
        configs: Sequence[Any],
        *,
        poll_wait_s: float = 1.0,
        labels_may_wait: bool = False,
        warm_up: Callable[[ServedModel], None] = lambda model: None,
    ) -> None:
        """Loads each model once.

        Args:
            configs: ``ModelConfig`` messages.
            poll_wait_s: seconds between two looks at the folders; 0 or less: none after the first.
            labels_may_wait: whether a label may name a version that is not available yet.
            warm_up: plays the warm-up requests of a version before it is available; raises
                ``StatusError`` if one of them fails.

        Raises:
            NoModelError: if a model has no version to load.
            BrokenModelError: if TensorFlow cannot load one.
            StatusError: if the configuration cannot be followed.
        """
        self._changed = threading.Condition()
        self._models: dict[str, _Model] = {}
        self._poll_wait_s, self._labels_may_wait = poll_wait_s, labels_may_wait
        self._warm_up, self.metrics = warm_up, Metrics()
        self._is_stopped = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="model folders", daemon=True)
        self._following = threading.Lock()
        self._configure(configs)
        try:
            for model in self._models.values():
                if not Path(model.config.base_path).is_dir() or not wanted_versions(model.config):
                    raise NoModelError(_why_none(model.config))
                self._follow(model, is_first=True)
        except BaseException:
            self.close()
            raise
        if poll_wait_s > 0:
            self._poller.start()

    @contextmanager
    def use(self, model_spec: Any) -> Iterator[ServedModel]:
        """Gives the version that a ``ModelSpec`` means; it stays loaded until the block ends.

        Raises:
            StatusError: with TensorFlow Serving's code and text.
        """
        if not model_spec.name:
            raise invalid("ModelSpec has no name specified.")
        with self._changed:
            version, served = self._find(model_spec)
            version.num_users += 1
        try:
            yield served
        finally:
            with self._changed:
                version.num_users -= 1
                self._changed.notify_all()

    def status(self, model_spec: Any) -> Any:
        """Gives the ``GetModelStatusResponse``: every version that was ever seen, highest first.

        Raises:
            StatusError: with TensorFlow Serving's code and text.
        """
        name = model_spec.name
        with self._changed:
            wanted = self._version_number(model_spec)
            versions = self._models[name].versions if name in self._models else {}
            numbers = [number for number in versions if wanted in (None, number)]
            if not numbers:
                what = "any versions" if wanted is None else f"version {wanted}"
                raise StatusError(StatusCode.NOT_FOUND, f"Could not find {what} of model {name}")
            response = get_model_status_pb2.GetModelStatusResponse()
            for number in sorted(numbers, reverse=True):
                version = versions[number]
                entry = response.model_version_status.add(version=number, state=version.state)
                entry.status.SetInParent()  # OK, where nothing else is said
                if version.state == State.END and version.error:
                    entry.status.error_code = version.error.number
                    entry.status.error_message = version.error.message
        return response

    def served(self) -> list[ServedModel]:
        """Lists the highest version of each model, as they are now."""
        with self._changed:
            highest = [each for model in self._models.values() for each in model.available()[:1]]
            return [version.served for version in highest if version.served]

    def reload(self, configs: Sequence[Any]) -> None:
        """Follows another configuration; models that it does not name are unloaded.

        Returns when each new model has a version.

        Raises:
            StatusError: if it cannot be followed, and the one before stays in effect; or if a
                model has no version yet, which is looked for then.
        """
        with self._following:
            self._configure(configs)
            self._follow_all()
            missing = [each.config.name for each in self._models.values() if not each.available()]
            if missing:
                raise StatusError(
                    StatusCode.UNKNOWN, f"models without an available version: {', '.join(missing)}"
                )

    def close(self) -> None:
        """Unloads everything, and cancels what runs; ``use`` fails from then on."""
        self._is_stopped.set()
        if self._poller.is_alive():
            self._poller.join()
        with self._changed:
            models, self._models = list(self._models.values()), {}
        for model in models:
            for version in list(model.versions.values()):
                self._unload(version, drain_s=0.0)

    # --- Which version a request means; the caller holds the lock. --------------------------------

    def _find(self, model_spec: Any) -> tuple[_Version, ServedModel]:
        name, number = model_spec.name, self._version_number(model_spec)
        model = self._models.get(name)
        for version in model.available() if model else ():
            if version.served and number in (None, version.number):
                return version, version.served
        wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        raise StatusError(StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")

    def _version_number(self, model_spec: Any) -> int | None:
        choice = model_spec.WhichOneof("version_choice")
        if choice == "version_label":
            model, label = self._models.get(model_spec.name), model_spec.version_label
            if model is None or label not in model.config.version_labels:
                raise invalid(f"Unrecognized servable version label: {label}")
            return int(model.config.version_labels[label])
        return int(model_spec.version.value) if choice == "version" else None

    # --- Following folders and configuration. -----------------------------------------------------

    def _configure(self, configs: Sequence[Any]) -> None:
        """Takes a configuration over, all of it or nothing."""
        with self._changed:
            self._check(configs)
            gone, self._models = self._models, {}
            for config in configs:
                model = self._models[config.name] = gone.pop(config.name, _Model(config=config))
                model.config = config
        for model in gone.values():
            for version in model.available():
                self._unload_later(version)

    def _check(self, configs: Sequence[Any]) -> None:
        names = [config.name for config in configs]
        for config in configs:
            if not config.name or names.count(config.name) > 1:
                raise invalid(
                    f"model names are {', '.join(map(repr, names))}; expected each once, and none "
                    "empty"
                )
            if not config.model_platform and not config.model_type:
                raise invalid("Illegal setting neither model_type(deprecated) nor model_platform.")
            if not Path(config.base_path).is_absolute():
                raise invalid(
                    f"Expected model {config.name} to have an absolute path or URI; got "
                    f"base_path()={config.base_path}"
                )
            known = self._models.get(config.name)
            numbers = {version.number for version in known.available()} if known else set()
            for label, number in config.version_labels.items():
                is_new = known is None or label not in known.config.version_labels
                if number not in numbers and not (self._labels_may_wait and is_new):
                    raise StatusError(
                        StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {number} of model {config.name}, "
                        "which is not currently available for inference",
                    )

    def _poll(self) -> None:
        while not self._is_stopped.wait(self._poll_wait_s):
            with self._following:
                self._follow_all()

    def _follow_all(self) -> None:
        for model in self._models.values():
            try:
                self._follow(model)
            except OSError as error:
                logger.warning("%s cannot be read: %s", model.config.base_path, error)

    def _follow(self, model: _Model, *, is_first: bool = False) -> None:
        """Loads the versions that are wanted, and then unloads those that are not.

        At the start, what fails is told; later it is tried again.
        """
        wanted = wanted_versions(model.config)
        for number, folder in sorted(wanted.items()):
            with self._changed:
                version = model.versions.get(number)
                if version is None or (version.state == State.END and not version.error):
                    version = model.versions[number] = _Version(number=number)
                is_due = version.state == State.LOADING and time.monotonic() >= version.retry_at_s
            if is_due and not self._is_stopped.is_set():
                self._load(model.config.name, version, folder, is_first=is_first)
        with self._changed:
            available = model.available()
            unwanted = [version for version in available if version.number not in wanted]
            # Never without any version, as long as one is wanted.
            is_safe = not wanted or len(unwanted) < len(available)
            for number in model.versions.keys() - wanted:
                if model.versions[number].state in (State.LOADING, State.END):
                    # When it is wanted again, it is tried again.
                    model.versions[number].state, model.versions[number].error = State.END, None
        for version in unwanted if is_safe else ():
            logger.info("unloading %s version %d", model.config.name, version.number)
            self._unload_later(version)

    def _load(self, name: str, version: _Version, folder: Path, *, is_first: bool) -> None:
        try:
            served = self._load_and_warm_up(name, version.number, folder)
        except (StatusError, OSError) as error:
            code = error.code if isinstance(error, StatusError) else StatusCode.UNKNOWN
            told = StatusError(code, str(error))
            text = f"{folder} cannot be loaded: {' '.join(told.message.split())}"
            if is_first:
                raise BrokenModelError(
                    f"{text}; export the model again, or remove this folder so that the version "
                    "before it is served"
                ) from error
            with self._changed:
                version.error, version.num_failures = told, version.num_failures + 1
                version.retry_at_s = time.monotonic() + RETRY_INTERVAL_S
                is_last = version.num_failures > NUM_RETRIES
                version.state = State.END if is_last else State.LOADING
            again = "it is given up" if is_last else f"it is tried again in {RETRY_INTERVAL_S:g} s"
            logger.warning("%s; %s", text, again)
            return
        with self._changed:
            version.served, version.state, version.error = served, State.AVAILABLE, None
        if not is_first:
            logger.info("serving %s version %d", name, version.number)

    def _load_and_warm_up(self, name: str, number: int, folder: Path) -> ServedModel:
        succeeded = False
        try:
            session = SavedModelSession(folder)
            succeeded = True
        finally:
            self.metrics.load(str(folder), succeeded=succeeded)
        served = ServedModel(name=name, version=number, folder=folder, session=session)
        try:
            self._warm_up(served)
        except BaseException:
            session.close()
            raise
        return served

    def _unload_later(self, version: _Version) -> None:
        with self._changed:
            version.state = State.UNLOADING
        threading.Thread(target=self._unload, args=(version,), daemon=True).start()

    def _unload(self, version: _Version, *, drain_s: float | None = None) -> None:
        """Waits for requests under way, for ever or for a while, and closes the session."""
        with self._changed:
            self._changed.wait_for(lambda: version.num_users == 0, timeout=drain_s)
            served, version.served = version.served, None
        if served:
            served.session.close()
        with self._changed:
            version.state = State.END


def wanted_versions(config: Any) -> dict[int, Path]:
    """Gives the folders of the versions that the policy of a ``ModelConfig`` asks for.

    They are named by number; 007 is version 7.

    Raises:
        OSError: if the folder cannot be read.
    """
    base, policy = Path(config.base_path), config.model_version_policy
    found = {int(path.name): path for path in base.iterdir() if _is_version(path)}
    choice = policy.WhichOneof("policy_choice")
    numbers = sorted(found)
    if choice == "specific":
        numbers = policy.specific.versions
    elif choice != "all":
        numbers = numbers[-(policy.latest.num_versions or 1) :]
    return {number: found[number] for number in numbers if number in found}


def _is_version(path: Path) -> bool:
    is_number = path.name.isascii() and path.name.isdecimal()
    return is_number and int(path.name) <= LARGEST_VERSION and path.is_dir()


def _why_none(config: Any) -> str:
    """Tells why a model has no version to serve, and what may have been meant."""
    base = Path(config.base_path)
    if not base.is_dir():
        return (
            f"{base} is no folder; expected one with a numbered folder for each version, as "
            "`make train-multigpu` and `python -m trainer export` write it"
        )
    found = sorted(path.name for path in base.iterdir() if _is_version(path))
    if found:
        asked = " ".join(str(config.model_version_policy).split())
        return f"{base} holds the versions {', '.join(found)}; the policy asks for none: {asked}"
    if (base / SAVED_MODEL).is_file():
        hint = f"it is a SavedModel itself; give the folder above it, {base.parent}"
        if not base.name.isdecimal():
            hint = f"it is a SavedModel itself; move it to {base}/1"
    else:
        below = sorted(path.parent.parent.name for path in base.glob(f"*/*/{SAVED_MODEL}"))
        hint = f"did you mean {base / below[0]}?" if below else "export a model first"
    return f"{base} holds no numbered version such as {base / '1'}; {hint}"
