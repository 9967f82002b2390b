"""The arguments of each container, read by the program that will get them."""

import pytest

from preprocessing.__main__ import _cut_at_separator
from preprocessing.__main__ import build_parser as preprocessing_parser
from preprocessing.config import TfrecordsConfig
from preprocessing.download.config import DownloadConfig
from serving.config import PredictConfig, ServeConfig
from serving.flags import build_parser as serving_parser
from tests.k8s.manifests import BUILDS, arguments_of, containers, manifests, workloads
from trainer.config import make_config
from trainer.evaluation.config import EvaluationConfig
from trainer.flags import build_parser as trainer_parser

BEAM_WORKERS = "apache_beam.runners.worker.worker_pool_main"
ELSEWHERE = ("flink", "apache/beam_flink1.20_job_server")
"""Images with programs of others."""


def configure(package: str, words: list[str]) -> object:
    """Makes the configuration that a command line asks for; a mistake in it is an error."""
    if package == "preprocessing":
        own, beam = _cut_at_separator(words)
        flags = vars(preprocessing_parser().parse_args(own))
        if flags.pop("verb") == "download":
            return DownloadConfig(**flags)
        return TfrecordsConfig(**flags, beam_options=tuple(beam))
    if package == "trainer":
        flags = vars(trainer_parser().parse_args(words))
        verb = flags.pop("verb")
        if verb == "train":
            return make_config(str(flags.pop("recipe")), **flags)
        return EvaluationConfig(**flags) if verb == "evaluate" else flags
    flags = vars(serving_parser().parse_args(words))
    return {"predict": PredictConfig, "serve": ServeConfig}[flags.pop("verb")](**flags)


@pytest.mark.parametrize("build", BUILDS)
def test_programs_take_their_arguments(build):
    objects, seen = manifests(build), set()
    for _, template in workloads(objects):
        for container in containers(template["spec"]):
            image, words = container["image"].partition(":")[0], arguments_of(container, objects)
            if image in ELSEWHERE:
                continue
            if container["name"] == "wait-for-flink":
                compile(words[0], "wait-for-flink", "exec")
                continue
            if image == "tensorflow/serving":
                assert container["command"] == ["tensorflow_model_server"]
                assert configure("serving", ["serve", *words])
            elif words[0] == BEAM_WORKERS:
                assert words[1:] == ["--service_port=50000"]
            else:
                assert "command" not in container  # the image's own is `python -m`
                configure(words[0], words[1:])
                seen.add(tuple(words[:2]))
    assert seen == {
        *(("preprocessing", verb) for verb in ("download", "tfrecords")),
        *(("trainer", verb) for verb in ("train", "evaluate", "export")),
        ("serving", "predict"),
    }


def test_flag_that_was_renamed_is_found():
    with pytest.raises(SystemExit):
        configure("trainer", ["train", "--data=/data", "--output=/runs"])
    with pytest.raises(ValueError, match="--epochs is 0"):
        configure("trainer", ["train", "--data=/data", "--out=/runs", "--epochs=0"])
