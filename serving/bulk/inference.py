"""Two ways to ask a model for Beam's RunInference: in the worker itself, and at an endpoint."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from apache_beam.ml.inference.base import ModelHandler

from serving import codec
from serving.bulk.chunks import Answer, Answers, Chunk
from serving.client import SegmentationClient, mask_of_pixels
from serving.config import BulkConfig
from serving.endpoint import Endpoint
from serving.engine import SavedModelSession
from serving.errors import CallError, RefusedInputError
from serving.pipeline import in_order
from serving.status import StatusCode, StatusError
from trainer.signature import ARRAY_SIGNATURE, IMAGE, PROBABILITY, PROBABILITY_THRESHOLD
from trainer.test_time import flipped, mean_of_flips


class ChunkHandler(ModelHandler[Chunk, Answers, Any], ABC):
    """What both have in common: a chunk is a batch already."""

    def __init__(self, config: BulkConfig) -> None:
        """Keeps how slices are segmented.

        Args:
            config: of the job.
        """
        super().__init__()
        self.config = config

    def run_inference(
        self, batch: Sequence[Chunk], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterable[Answers]:
        """Segments all slices of a chunk."""
        return [self.answer(chunk, model) for chunk in batch]

    @abstractmethod
    def answer(self, chunk: Chunk, model: Any) -> Answers:
        """Segments all slices of a chunk."""

    def get_num_bytes(self, batch: Sequence[Chunk]) -> int:
        """Gives the bytes of the pixels, for Beam's own counters."""
        return sum(item.gray_values.nbytes for chunk in batch for item in chunk.items)


class SavedModelHandler(ChunkHandler):
    """Runs a SavedModel in the worker, in TensorFlow's C++ session; threads share it."""

    def load_model(self) -> SavedModelSession:
        """Loads the SavedModel."""
        return SavedModelSession(Path(str(self.config.model)))

    def answer(self, chunk: Chunk, model: SavedModelSession) -> Answers:
        """Segments all slices of a chunk, one after the other."""
        version = _version(self.config.model)
        answers = []
        for item in chunk.items:
            try:
                masks = [self._mask(image, model) for image in item.gray_values]
            except StatusError as error:
                if error.code != StatusCode.INVALID_ARGUMENT:
                    return Answers(chunk=chunk, failure=f"the model fails: {error}")
                answers.append(Answer(reason=f"is refused by the model: {error}"))
                continue
            answers.append(Answer(mask=np.stack(masks), model_version=version))
        return Answers(chunk=chunk, answers=answers)

    def _mask(
        self, image: npt.NDArray[np.uint8], model: SavedModelSession
    ) -> npt.NDArray[np.uint8]:
        """Segments a slice [height, width] and its flips."""
        signature = model.signatures[ARRAY_SIGNATURE.name]
        request = codec.array_request(
            flipped(image, self.config.flip_set),
            model_name=self.config.model_name,
            output_key=PROBABILITY.key,
        )
        feeds = {signature.inputs[IMAGE.key].name: request.inputs[IMAGE.key].SerializeToString()}
        (probability,) = model.run(feeds, [signature.outputs[PROBABILITY.key].name])
        mean = mean_of_flips(probability[..., 0], self.config.flip_set)
        return (mean >= PROBABILITY_THRESHOLD).astype(np.uint8)


class EndpointHandler(ChunkHandler):
    """Asks a server by gRPC, several slices at a time."""

    def load_model(self) -> SegmentationClient:
        """Makes the client."""
        return SegmentationClient(Endpoint.of(self.config))

    def answer(self, chunk: Chunk, model: SegmentationClient) -> Answers:
        """Segments all slices of a chunk; a server that fails ends it."""

        def segment(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8] | str, int | None]:
            try:
                mask = mask_of_pixels(image, client=model, flips=self.config.flip_set)
            except RefusedInputError as error:
                return str(error), None
            return mask, model.answered_version

        images = (image for item in chunk.items for image in item.gray_values)
        try:
            results = list(in_order(segment, images, window=self.config.window))
        except CallError as error:
            return Answers(chunk=chunk, failure=str(error))
        answers, start = [], 0
        for item in chunk.items:
            part = results[start : start + len(item.gray_values)]
            start += len(part)
            refused = [answer for answer, _ in part if isinstance(answer, str)]
            if refused:
                answers.append(Answer(reason=f"is refused: {refused[0]}"))
            else:
                mask = np.stack([answer for answer, _ in part])
                answers.append(Answer(mask=mask, model_version=part[-1][1]))
        return Answers(chunk=chunk, answers=answers)


def make_handler(config: BulkConfig) -> ChunkHandler:
    """Gives the way that a configuration asks for."""
    return SavedModelHandler(config) if config.model else EndpointHandler(config)


def _version(model: str | None) -> int | None:
    name = Path(model or "").name
    return int(name) if name.isdecimal() else None
