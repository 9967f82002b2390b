"""What is trained and measured in turn, for each patient who is left out."""

import dataclasses
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import OF_THE_MACHINE, TrainerConfig, make_config
from trainer.evaluation.config import EvaluationConfig, check_scanner_every
from trainer.test_time import check_flips

_OWN = {
    "hold_out": "each patient is held out in turn; name some with --folds",
    "patience": "it would choose an epoch by the patient who is held out; all --epochs are run",
    "resume": "folds that are there are kept, and the one under way goes on",
}
"""Settings of training that cross-validation sets itself, and why."""


@dataclass(frozen=True, kw_only=True)
class CrossValidationConfig:
    """Settings of ``python -m trainer cross-validate``."""

    data: Path
    """Dataset with the patients; who is in which split of it makes no difference."""

    out: Path
    """Folder for a run of each patient, and for the results. What is there is kept."""

    recipe: str = "reference"
    """A key of ``trainer.config.RECIPES``."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``TrainerConfig`` that differ from the recipe."""

    folds: tuple[str, ...] | None = None
    """Patients who are left out in turn; ``None``: all of them."""

    flips: str = EvaluationConfig.flips
    """As in ``EvaluationConfig``."""

    postprocess: bool = EvaluationConfig.postprocess
    """As in ``EvaluationConfig``."""

    scanner_every: int = EvaluationConfig.scanner_every
    """As in ``EvaluationConfig``."""

    def __post_init__(self) -> None:
        """Checks values.

        Raises:
            ValueError: if a setting cannot work, or cross-validation sets it itself.
        """
        for name, reason in _OWN.items():
            if name in self.settings:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"received {flag} {self.settings[name]}; expected none: {reason}")
        if self.folds is not None and (not self.folds or len(set(self.folds)) < len(self.folds)):
            raise ValueError(
                f"--folds is {','.join(self.folds)!r}; expected patients, each once, such as P1,P2"
            )
        check_flips(self.flips)
        check_scanner_every(self.scanner_every)
        self.recipe_config()  # knows what is wrong with the other settings

    def training(self, patient_id: str) -> TrainerConfig:
        """Gives the training without a patient: all epochs, and nothing is chosen on the patient.

        Raises:
            ValueError: if a setting cannot work.
        """
        config = self.recipe_config()
        return dataclasses.replace(
            config,
            out=self.fold_dir(patient_id),
            hold_out=patient_id,
            patience=config.epochs,
        )

    def recipe_config(self) -> TrainerConfig:
        """Gives the training that all folds have in common.

        Raises:
            ValueError: if a setting cannot work.
        """
        return make_config(self.recipe, data=self.data, out=self.out, **self.settings)

    def fold_dir(self, patient_id: str) -> Path:
        """Gives the folder of the run that leaves a patient out."""
        # An id may hold what a name of a folder cannot.
        return self.out / f"fold-{urllib.parse.quote(patient_id, safe=' ')}"

    def describe(self, patient_id: str) -> dict[str, Any]:
        """Gives the settings on which the figures of a fold depend, but for the dataset."""
        training = json.loads(self.training(patient_id).recipe_to_json())
        return {
            "training": {name: training[name] for name in training if name not in OF_THE_MACHINE},
            "flips": self.flips,
            "postprocess": self.postprocess,
            "scanner_every": self.scanner_every,
        }
