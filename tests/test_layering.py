"""Who may import whom: data flows right, imports point left, and only at contracts."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("preprocessing", "trainer", "serving")

CONTRACTS = {
    "preprocessing": set(),
    "trainer": {
        "preprocessing.folders",
        "preprocessing.manifest",
        "preprocessing.phantoms.teaching",
        "preprocessing.publish",
        "preprocessing.records",
        "preprocessing.spec",
    },
    "serving": {
        "preprocessing.engines",
        "preprocessing.errors",
        "preprocessing.finding",
        "preprocessing.framing",
        "preprocessing.images.reading",
        "preprocessing.publish",
        "preprocessing.spec",
        "preprocessing.volumes.detection",
        "preprocessing.volumes.dicom_series",
        "preprocessing.volumes.finding",
        "preprocessing.volumes.nifti",
        "preprocessing.volumes.scans",
        "preprocessing.volumes.windowing",
        "trainer.postprocessing",
        "trainer.signature",
        "trainer.test_time",
    },
}
"""What a stage may import of the stages before it."""

HOMES = {
    "apache_beam": {
        "preprocessing/pipeline.py",
        "preprocessing/engines.py",
        "serving/bulk/inference.py",
        "serving/bulk/job.py",
        "serving/bulk/storage.py",
    },
    "argparse": {"preprocessing/__main__.py", "trainer/flags.py", "serving/flags.py"},
    "gdown": {
        "preprocessing/download/drive.py",
        "preprocessing/download/failures.py",
        "preprocessing/download/transfer.py",
    },
    # Slow to load, and no worker of Beam needs them.
    "jinja2": {"preprocessing/inspection/gallery.py", "serving/report.py", "trainer/model_card.py"},
    "scipy": {
        "preprocessing/inspection/measures.py",
        "preprocessing/phantoms/acquisition.py",
        "trainer/evaluation/surface.py",
        "serving/volumes/lungs.py",
        "trainer/postprocessing.py",
        "trainer/simulated_scanners.py",
    },
    "skimage": {"preprocessing/volumes/mask_volumes.py", "trainer/simulated_scanners.py"},
    # Volumes; slices do without.
    "highdicom": {
        "preprocessing/volumes/dicom_series.py",
        "preprocessing/volumes/mask_volumes.py",
        "preprocessing/volumes/nifti.py",
        "preprocessing/volumes/scans.py",
        "serving/volumes/job.py",
        "serving/volumes/segmentation_file.py",
    },
    "nibabel": {"preprocessing/volumes/nifti.py"},
    "pydicom": {
        "preprocessing/volumes/dicom_series.py",
        "preprocessing/volumes/finding.py",
        "preprocessing/volumes/mask_volumes.py",
        "serving/volumes/job.py",
        "serving/volumes/segmentation_file.py",
    },
    "flask": {"serving/view/app.py"},
    "waitress": {"serving/view/server.py"},
    "grpc": {
        "serving/async_client.py",
        "serving/client.py",
        "serving/endpoint.py",
        "serving/status.py",
        "serving/embedded/config_files.py",
        "serving/embedded/server.py",
        "serving/embedded/servicers.py",
    },
}
"""Libraries that only some files may import."""


def modules() -> list[Path]:
    return [path for stage in STAGES for path in sorted((ROOT / stage).rglob("*.py"))]


def imports_of(path: Path) -> set[str]:
    """Gives the dotted names of all modules that a file imports, at its top or in functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def breaches(stage: str, imported: set[str]) -> set[str]:
    """Gives the imports from other stages that are no contracts."""
    foreign = {
        name for name in imported if name.split(".")[0] in STAGES and name.split(".")[0] != stage
    }
    allowed = CONTRACTS[stage]
    return {
        name
        for name in foreign
        if name not in allowed
        and not any(name.startswith(f"{contract}.") for contract in allowed)
        # `from preprocessing import spec` names the package too
        and not any(contract.startswith(f"{name}.") for contract in allowed & imported)
    }


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_other_stages_only_at_contracts(path):
    stage = path.relative_to(ROOT).parts[0]
    assert not breaches(stage, imports_of(path))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_library_with_a_home_is_imported_there_only(path):
    name = path.relative_to(ROOT).as_posix()
    tops = {imported.split(".")[0] for imported in imports_of(path)}
    for library, homes in HOMES.items():
        assert library not in tops or name in homes, f"{name} imports {library}"


@pytest.mark.parametrize(
    ("stage", "imported"),
    [
        ("preprocessing", {"trainer.config"}),
        ("trainer", {"serving.client"}),
        ("trainer", {"preprocessing.pipeline"}),
        ("trainer", {"preprocessing", "preprocessing.pairing"}),
        ("serving", {"trainer.model"}),
    ],
)
def test_check_of_imports_can_fail(stage, imported):
    assert breaches(stage, imported)


def test_only_the_distribution_module_names_tf_distribute_classes():
    for path in (ROOT / "trainer").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("tf.distribute.")
        }
        if path.name != "distribution.py":
            assert named <= {"tf.distribute.Strategy"}, path  # the type of an argument


def test_package_files_are_empty():
    paths = [path for path in modules() if path.name == "__init__.py"]
    assert len(paths) == 16
    for path in paths:
        assert path.read_text() == "", path


def test_every_package_is_listed_in_setup():
    setup = (ROOT / "setup.py").read_text()
    for path in modules():
        package = ".".join(path.relative_to(ROOT).parts[:-1])
        assert f'"{package}"' in setup, package


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("preprocessing.folders", {"tensorflow", "apache_beam", "scipy", "jinja2"}),
        ("preprocessing.spec", {"numpy"}),
        ("preprocessing.manifest", {"numpy"}),
        ("preprocessing.publish", {"numpy"}),
        ("preprocessing.records", {"tensorflow", "apache_beam"}),
        ("preprocessing.pipeline", {"tensorflow", "scipy", "jinja2"}),
        ("preprocessing.__main__", {"apache_beam", "scipy", "jinja2"}),
        ("preprocessing.images.reading", {"tensorflow", "apache_beam"}),
        ("trainer.signature", {"numpy", "tensorflow"}),
        ("trainer.test_time", {"tensorflow", "scipy"}),
        ("trainer.postprocessing", {"tensorflow"}),
        ("trainer.__main__", {"tensorflow", "skimage", "scipy"}),
        ("serving.client", {"tensorflow.python", "apache_beam", "keras", "scipy"}),
        ("serving.async_client", {"tensorflow.python", "apache_beam", "keras", "scipy"}),
    ],
)
def test_contract_loads_nothing_heavy(module, heavy):
    code = (
        f"import sys, {module}; found = {heavy!r} & set(sys.modules); "
        "sys.exit(f'loaded {found}' if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
