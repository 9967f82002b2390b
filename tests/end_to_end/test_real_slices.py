"""The road on real slices, in one process: records, training, export, both signatures."""

import json
from pathlib import Path

import numpy as np
import pytest

from preprocessing import pipeline
from preprocessing.config import TfrecordsConfig
from preprocessing.images.reading import read_mask, read_slice
from preprocessing.manifest import DatasetManifest
from serving import predict
from serving.config import SENT_SIGNATURES, PredictConfig, ServeConfig
from serving.embedded.server import EmbeddedServer
from trainer.config import TrainerConfig
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.job import evaluate
from trainer.export import ExportConfig, export
from trainer.input_pipeline import read_examples
from trainer.train import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def road(lctsc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drives 236 slices of five patients along the road, with a small and hasty U-Net."""
    out = tmp_path_factory.mktemp("road")
    images, masks = lctsc / "images", lctsc / "masks"
    pipeline.run(TfrecordsConfig(images=images, masks=masks, out=out / "dataset"))
    run(
        TrainerConfig(
            data=out / "dataset",
            out=out / "run",
            image_size=64,
            filters=8,
            epochs=10,
            patience=10,
            learning_rate=3e-3,
        )
    )
    evaluate(
        EvaluationConfig(
            run=out / "run",
            out=out / "evaluation",
            write_masks=True,
            flips="none",
            postprocess=False,
        )
    )
    export(ExportConfig(run=out / "run", out=out / "model"))
    return out


def validation_slices(road: Path) -> list[str]:
    report = json.loads((road / "evaluation" / "evaluation.json").read_text())
    return [entry["slice_id"] for entry in report["by_slice"]]


def test_every_pair_is_in_the_records_and_no_patient_in_two_splits(road, lctsc):
    manifest = DatasetManifest.load(road / "dataset")
    train, validation = (set(manifest.splits[name].patients) for name in ("train", "validation"))
    assert len(train) == 4
    assert len(validation) == 1
    assert not train & validation
    seen = 0
    for split in manifest.splits:
        for example in read_examples(road / "dataset", manifest, split).as_numpy_iterator():
            name = f"{example['slice_id'].decode()}.bmp"
            assert np.array_equal(example["image"][:, :, 0], read_slice(lctsc / "images" / name))
            assert np.array_equal(example["mask"][:, :, 0], read_mask(lctsc / "masks" / name))
            seen += 1
    assert seen == 236


def test_hasty_training_finds_most_of_the_lungs(road):
    overall = json.loads((road / "evaluation" / "evaluation.json").read_text())["overall"]
    assert overall["dice_pooled"] > 0.7


@pytest.mark.parametrize("signature", SENT_SIGNATURES)
def test_served_mask_is_the_trainers_own_pixel_by_pixel(road, lctsc, tmp_path, signature):
    slice_ids = validation_slices(road)
    folder = tmp_path / "slices"
    folder.mkdir()
    for slice_id in slice_ids:
        (folder / f"{slice_id}.bmp").symlink_to(lctsc / "images" / f"{slice_id}.bmp")
    with EmbeddedServer(ServeConfig(model_base_path=road / "model", port=0)) as server:
        summary = predict.run(
            PredictConfig(
                inputs=[folder],
                out=tmp_path / "out",
                target=server.target,
                signature=signature,
                flips="none",
                postprocess=False,
            )
        )
    assert not summary.failed
    assert not summary.stopped
    areas = 0
    for slice_id in slice_ids:
        served = read_mask(tmp_path / "out" / "masks" / f"{slice_id}.png")
        trained = read_mask(road / "evaluation" / "predicted_masks" / f"{slice_id}.png")
        assert np.array_equal(served, trained), slice_id
        areas += int(served.sum())
    assert areas > 0  # equal because empty would prove little
