from pathlib import Path

import pytest

from trainer.evaluation.config import EvaluationConfig

RUN, MODEL, DATA, IMAGES = Path("r"), Path("m"), Path("d"), Path("i")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "received nothing to measure; expected exactly one of --run .*, --checkpoint and"),
        ({"run": RUN, "model": MODEL}, "received --run and --model; expected exactly one of"),
        (
            {"run": RUN, "split": "test"},
            "--split is 'test'; expected one of train, validation, all",
        ),
        ({"model": MODEL}, "received --model and nothing to measure it on; .* --data, or --images"),
        (
            {"run": RUN, "data": DATA, "images": IMAGES},
            "received --data and --images; expected one",
        ),
        ({"run": RUN, "masks": IMAGES}, "received --masks without --images; expected both"),
        ({"run": RUN, "mask_pattern": "^m"}, "received --mask-pattern without --images; expected"),
        (
            {"run": RUN, "patient_pattern": "names"},
            "received --patient-pattern without --images; expected both",
        ),
        (
            {"run": RUN, "mask_foreground": (1,)},
            "received --mask-foreground without --images; expected both",
        ),
        (
            {"run": RUN, "allow_orphans": True},
            "received --allow-orphans without --images; expected both",
        ),
        (
            {"run": RUN, "images": IMAGES, "split": "all"},
            "received --split all and --images; expected no --split",
        ),
        (
            {"run": RUN, "pixel_spacing_mm": 0.0},
            "--pixel-spacing-mm is 0.0; expected the width of a pixel in millimeters",
        ),
        ({"run": RUN, "scanner": "all", "scanner_every": 0}, "--scanner-every is 0; expected at"),
        (
            {"run": RUN, "scanner_every": 2},
            "received --scanner-every 2 without --scanner; expected",
        ),
        (
            {"run": RUN, "flips": "vertical"},
            "--flips is 'vertical'; expected one of none, horizontal, all",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(out=Path("o"), **settings)


def test_each_of_the_ways_is_accepted():
    for what in ({"run": RUN}, {"checkpoint": RUN}):
        for on_what in ({}, {"data": DATA, "split": "all"}, {"images": IMAGES, "masks": DATA}):
            EvaluationConfig(out=Path("o"), **what, **on_what)
    EvaluationConfig(out=Path("o"), model=MODEL, data=DATA)
    EvaluationConfig(out=Path("o"), model=MODEL, images=IMAGES, mask_foreground=(1, 2))
