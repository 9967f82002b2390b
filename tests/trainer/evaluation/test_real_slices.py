import json

import pytest

from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.job import evaluate


@pytest.mark.slow
def test_folders_of_real_slices_are_measured(lctsc, saved_model, tmp_path):
    report = evaluate(
        EvaluationConfig(
            model=saved_model, images=lctsc / "images", masks=lctsc / "masks", out=tmp_path
        )
    )
    assert report["num_slices"] == len(list((lctsc / "images").iterdir()))
    assert report["refused"] == []
    assert all(name.startswith("LCTSC-Test-S1-") for name in report["by_patient"])
    low, high = report["intervals"]["by_metric"]["sensitivity"]
    # Lung, and the air around the table with it, are between the two gray values.
    assert 0 < low < report["overall"]["sensitivity"] < high < 1
    assert report["overall"]["hausdorff_95_per_slice_mean"] > 10
    assert json.loads((tmp_path / "evaluation.json").read_text()) == report
