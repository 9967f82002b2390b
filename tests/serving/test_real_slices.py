import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.images.reading import read_slice
from serving import predict
from serving.config import PredictConfig
from serving.embedded.server import EmbeddedServer


@pytest.fixture(scope="module")
def real_slices() -> list[Path]:
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("LUNG_CT_DATA", default)) / "lctsc" / "images"
    if not folder.is_dir():
        pytest.skip(f"no real slices at {folder}; set LUNG_CT_DATA to the folder above lctsc")
    return sorted(folder.glob("*.bmp"))[::60]


def test_real_slices_give_the_same_masks_through_both_signatures(
    server: EmbeddedServer, real_slices: list[Path], tmp_path: Path
) -> None:
    for path in real_slices:
        for signature in ("serving_default", "encoded"):
            config = PredictConfig(
                inputs=[path],
                out=tmp_path / signature,
                target=server.target,
                signature=signature,
                flips="none",
                postprocess=False,
            )
            assert not predict.run(config).failed
        expected = np.where(read_slice(path) < 100, 255, 0)
        for signature in ("serving_default", "encoded"):
            with Image.open(tmp_path / signature / "masks" / f"{path.stem}.png") as mask:
                np.testing.assert_array_equal(np.asarray(mask), expected)
