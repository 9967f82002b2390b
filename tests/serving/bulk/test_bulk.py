import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import nibabel as nib
import numpy as np
import pytest
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem
from distributed import LocalCluster
from PIL import Image
from pydicom.uid import MRImageStorage

from preprocessing.errors import PreprocessingError
from serving import predict
from serving.__main__ import main
from serving.bulk import job, storage
from serving.bulk.job import BulkSummary
from serving.client import SegmentationClient
from serving.config import BulkConfig, PredictConfig
from serving.embedded.server import EmbeddedServer
from serving.errors import InputError, JobFailedError, ServerUnavailableError
from tests.scan_files import chest, write_nifti, write_series


def write_slices(folder: Path, *, count: int = 7) -> None:
    rng = np.random.default_rng(0)
    for index in range(count):
        shape = (20, 30) if index % 3 else (16, 16)
        path = folder / f"P{index // 4}" / f"z{index:03d}.{'png' if index % 2 else 'bmp'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)


def run(inputs: Path | str, out: Path | str, **options: Any) -> BulkSummary:
    return job.run(
        BulkConfig(inputs=str(inputs), out=str(out), **{"slices_per_shard": 3} | options)
    )


def lines(out: Path) -> dict[str, dict[str, Any]]:
    """Reads all results that the manifest lists, by their names."""
    found: dict[str, dict[str, Any]] = {}
    manifest = json.loads((out / job.MANIFEST).read_text())
    for shard in manifest["shards"]:
        text = gzip.decompress((out / shard["filename"]).read_bytes()).decode()
        _, *results = map(json.loads, text.splitlines())
        assert len(results) == shard["num_results"]
        found |= {result.get("file", result.get("name")): result for result in results}
    assert len(found) == manifest["num_results"]
    return found


def mask_of(line: dict[str, Any]) -> np.ndarray:
    values = np.arange(len(line["counts"]), dtype=np.uint8) % 2
    return np.repeat(values, line["counts"]).reshape(line["size"], order="F")


def test_masks_are_those_of_the_client(
    server: EmbeddedServer, model_base_path: Path, tmp_path: Path
) -> None:
    write_slices(tmp_path / "slices")
    summary = run(tmp_path / "slices", tmp_path / "model", model=str(model_base_path))
    assert (summary.num_results, summary.num_shards, summary.refused) == (7, 3, [])
    run(tmp_path / "slices", tmp_path / "endpoint", target=server.target)
    predict.run(
        PredictConfig(inputs=[tmp_path / "slices"], out=tmp_path / "client", target=server.target)
    )
    by_model, by_endpoint = lines(tmp_path / "model"), lines(tmp_path / "endpoint")
    assert by_model == by_endpoint
    assert len(by_model) == 7
    for name, line in by_model.items():
        mask = np.asarray(Image.open(tmp_path / "client/masks" / Path(name).with_suffix(".png")))
        np.testing.assert_array_equal(mask_of(line) * 255, mask)
        assert line["area_px"] == np.count_nonzero(mask)
        assert line["model_version"] == 3


@pytest.mark.parametrize(
    ("runner", "beam_options"),
    [
        ("BundleBasedDirectRunner", ()),
        ("FnApiRunner", ("--direct_running_mode=in_memory", "--direct_num_workers=1")),
        ("DaskRunner", ("--dask_client_address={dask}",)),
    ],
)
def test_every_engine_writes_the_same(
    model_base_path: Path, tmp_path: Path, runner: str, beam_options: tuple[str, ...]
) -> None:
    write_slices(tmp_path / "slices")
    run(tmp_path / "slices", tmp_path / "default", model=str(model_base_path))
    with ExitStack() as stack:
        if runner == "DaskRunner":
            cluster = stack.enter_context(
                LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=None)
            )
            beam_options = (beam_options[0].format(dask=cluster.scheduler_address),)
        run(
            tmp_path / "slices",
            tmp_path / "other",
            model=str(model_base_path),
            runner=runner,
            beam_options=beam_options,
        )
    written = [
        {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()}
        for out in ("default", "other")
    ]
    assert written[0] == written[1]


def test_refused_slices_are_listed_and_the_others_go_on(
    model_base_path: Path, tmp_path: Path, capsys
) -> None:
    write_slices(tmp_path / "slices")
    (tmp_path / "slices/P0/broken.bmp").write_bytes(b"<html>")
    (tmp_path / "slices/notes.txt").write_text("hello")
    flags = ["--out", str(tmp_path / "out"), "--model", str(model_base_path / "3")]
    assert main(["bulk", str(tmp_path / "slices"), *flags]) == 1
    output = capsys.readouterr().out
    assert "refused: P0/broken.bmp is a web page or XML; expected BMP, PNG, TIFF or JPEG" in output
    assert "7 results, 1 refused; 1 shards, 0 of them by an earlier run" in output
    manifest = json.loads((tmp_path / "out/bulk.json").read_text())
    assert [entry["file"] for entry in manifest["refused"]] == ["P0/broken.bmp"]
    assert manifest["left_out"] == ["notes.txt"]
    assert len(lines(tmp_path / "out")) == 7


def test_finished_shards_are_left_alone(model_base_path: Path, tmp_path: Path) -> None:
    write_slices(tmp_path / "slices")

    def num_earlier(**options: Any) -> int:
        return run(
            tmp_path / "slices", tmp_path / "out", model=str(model_base_path), **options
        ).num_finished_before

    assert num_earlier() == 0
    first = lines(tmp_path / "out")
    assert num_earlier() == 3
    assert lines(tmp_path / "out") == first
    assert num_earlier(resume=False) == 0
    next((tmp_path / "out").glob("*.gz")).unlink()
    assert num_earlier() == 2
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "slices/P0/z000.bmp")
    assert num_earlier() == 2
    assert lines(tmp_path / "out")["P0/z000.bmp"]["size"] == [9, 9]
    assert num_earlier(postprocess=False) == 0
    assert not (tmp_path / "out/.plans").exists()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    _, mask = chest((6, 64, 64))
    mask[-1] = 0
    hounsfield = np.where(mask > 0, -850, 40).astype(np.int16)
    write_series(tmp_path / "scans/P1", hounsfield)
    paths = write_series(tmp_path / "scans/P2", hounsfield)
    paths[3].unlink()
    write_nifti(tmp_path / "scans/sub/P3.nii.gz", hounsfield)
    (tmp_path / "scans/notes.txt").write_text("hello")
    return tmp_path / "scans"


@pytest.mark.parametrize("way", ["model", "endpoint"])
def test_scans_get_folders_of_results(
    server: EmbeddedServer, model_base_path: Path, scans: Path, tmp_path: Path, way: str
) -> None:
    asked = {"model": str(model_base_path)} if way == "model" else {"target": server.target}
    summary = run(scans, tmp_path / "out", **asked)
    found = lines(tmp_path / "out")
    assert found.keys() == {"P1", "sub/P3.nii.gz"}
    assert found["P1"]["lungs_ml"] == found["sub/P3.nii.gz"]["lungs_ml"] > 0
    (refused,) = summary.refused
    assert refused.file == "P2"
    assert "P2/0002.dcm at -290.00 mm and P2/0004.dcm" in refused.reason
    assert json.loads((tmp_path / "out/bulk.json").read_text())["left_out"] == ["notes.txt"]
    written = np.asarray(nib.load(tmp_path / "out/scans/sub/P3.nii.gz/lungs.nii.gz").dataobj)
    assert set(np.unique(written)) == {0, 1, 2}
    assert sorted(path.name for path in (tmp_path / "out/scans/P1").iterdir()) == [
        "coronal.png",
        "lungs.dcm",
        "lungs.nii.gz",
        "result.json",
        "sagittal.png",
    ]


class BucketFileSystem(LocalFileSystem):
    """A bucket: ``bucket://`` and a path. Nothing of it can be opened as a file of this machine."""

    @classmethod
    def scheme(cls) -> str:
        return "bucket"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def match(self, patterns: list[str], limits: Any = None) -> Any:
        found = super().match([local(pattern) for pattern in patterns], limits)
        for result in found:
            result.metadata_list = [
                FileMetadata(
                    f"bucket:/{each.path}", each.size_in_bytes, each.last_updated_in_seconds
                )
                for each in result.metadata_list
            ]
        return found

    def open(self, path: str, *arguments: Any, **options: Any) -> Any:
        return super().open(local(path), *arguments, **options)

    def create(self, path: str, *arguments: Any, **options: Any) -> Any:
        Path(local(path)).parent.mkdir(parents=True, exist_ok=True)
        return super().create(local(path), *arguments, **options)

    def exists(self, path: str) -> bool:
        return super().exists(local(path))

    def rename(self, sources: list[str], destinations: list[str]) -> None:
        for source, destination in zip(sources, destinations, strict=True):
            Path(local(source)).rename(local(destination))

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            Path(local(path)).unlink()


def local(path: str) -> str:
    """Gives the file behind an address; what is asked from within is one already."""
    return path.removeprefix("bucket:/")


def test_bucket_is_read_and_written(
    model_base_path: Path, scans: Path, tmp_path: Path, monkeypatch
) -> None:
    write_slices(tmp_path / "slices")
    monkeypatch.chdir(tmp_path)
    for name in ("slices", "scans"):
        run(tmp_path / name, tmp_path / f"out-{name}", model=str(model_base_path))
        remote = run(
            f"bucket:/{tmp_path / name}",
            f"bucket:/{tmp_path / 'bucket' / name}",
            model=str(model_base_path),
        )
        assert lines(tmp_path / "bucket" / name) == lines(tmp_path / f"out-{name}")
        assert remote.num_finished_before == 0
        assert not list((tmp_path / "bucket").rglob("*.partial"))
    (refused,) = remote.refused
    assert "P2/0002.dcm at -290.00 mm" in refused.reason
    assert str(tmp_path) not in refused.reason
    places = f"bucket:/{scans}", f"bucket:/{tmp_path / 'bucket/scans'}"
    again = run(*places, model=str(model_base_path))
    assert again.num_finished_before == again.num_shards
    assert (tmp_path / "bucket/scans/scans/P1/coronal.png").is_file()
    run(*places, model=str(model_base_path), overlays=False)
    assert (tmp_path / "bucket/scans/scans/P1/lungs.dcm").is_file()
    assert not (tmp_path / "bucket/scans/scans/P1/coronal.png").exists()


def test_bucket_without_its_library_is_told(model_base_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gs://b cannot be listed: .*; for gs:// Beam needs its"):
        run("gs://b", tmp_path / "out", model=str(model_base_path))


def test_server_that_is_not_there_ends_the_job_at_once(tmp_path: Path) -> None:
    write_slices(tmp_path / "slices")
    with pytest.raises(ServerUnavailableError):
        run(tmp_path / "slices", tmp_path / "out", target="localhost:1", timeout_s=3)


def test_server_that_dies_leaves_the_finished_shards(
    server: EmbeddedServer, fake_server, tmp_path: Path
) -> None:
    write_slices(tmp_path / "slices")
    with SegmentationClient(server.target) as real:

        def answer(request: Any, context: grpc.ServicerContext) -> bytes:
            if len(fake.requests) > 5:  # the first tells the version
                context.abort(grpc.StatusCode.INTERNAL, "out of order")
            return real._predict(request, timeout=30)

        fake = fake_server(answer)
        options = {"target": fake.target, "window": 1, "flips": "none"}
        options["beam_options"] = ("--direct_num_workers=1",)
        with pytest.raises(JobFailedError, match=r"2 of 3 shards have no results: .*out of order"):
            run(tmp_path / "slices", tmp_path / "out", **options)
        assert len(list((tmp_path / "out").glob("*.gz"))) == 1
        options["target"] = server.target
        summary = run(tmp_path / "slices", tmp_path / "out", **options)
    assert (summary.num_results, summary.num_finished_before) == (7, 1)


def test_old_shards_do_not_hide_failures(
    model_base_path: Path, tmp_path: Path, monkeypatch
) -> None:
    write_slices(tmp_path / "slices")
    options = {"model": str(model_base_path)}
    run(tmp_path / "slices", tmp_path / "out", **options)

    def fail(address: str) -> bytes:
        if address.endswith((".bmp", ".png")):
            raise OSError(5, "Input/output error")
        return read(address)

    read = storage.read
    monkeypatch.setattr(storage, "read", fail)
    with pytest.raises(JobFailedError, match="3 of 3 shards have no results"):
        run(tmp_path / "slices", tmp_path / "out", resume=False, **options)


def test_scans_are_made_again_when_other_settings_came_between(
    model_base_path: Path, scans: Path, tmp_path: Path
) -> None:
    def num_earlier(**options: Any) -> int:
        return run(
            scans, tmp_path / "out", model=str(model_base_path), **options
        ).num_finished_before

    assert num_earlier() == 0
    assert num_earlier() == 3
    assert num_earlier(window_level_hu=-500) == 0
    assert num_earlier() == 1  # P2, which has no files


def test_results_below_the_input_are_no_input(model_base_path: Path, scans: Path) -> None:
    first = run(scans, scans / "results", model=str(model_base_path))
    again = run(scans, scans / "results", model=str(model_base_path))
    assert again.num_results == first.num_results == 2
    assert again.num_finished_before == 3


def test_neighbors_are_told_apart(model_base_path: Path, scans: Path, tmp_path: Path) -> None:
    content = (scans / "sub/P3.nii.gz").read_bytes()
    for name in ("P1.nii.gz", "sub/P4.nii.gz"):
        (scans / name).write_bytes(content)
    (scans / "sub/P3.json").write_text("{}")
    (scans / "README").write_text("hello")
    for path in sorted((scans / "P1").iterdir()):  # as many archives do
        path.rename(path.with_suffix(""))
    run(scans, tmp_path / "out", model=str(model_base_path))
    assert lines(tmp_path / "out").keys() == {
        "P1",
        "P1.nii.gz",
        "sub/P3.nii.gz",
        "sub/P4.nii.gz",
    }
    manifest = json.loads((tmp_path / "out/bulk.json").read_text())
    assert manifest["left_out"] == ["README", "notes.txt", "sub/P3.json"]


def test_masks_beside_scans_are_left_out(
    model_base_path: Path, scans: Path, tmp_path: Path
) -> None:
    run(scans, tmp_path / "out", model=str(model_base_path))
    (scans / "P1/lungs.dcm").write_bytes((tmp_path / "out/scans/P1/lungs.dcm").read_bytes())
    run(scans, tmp_path / "again", model=str(model_base_path))
    assert lines(tmp_path / "again").keys() == {"P1", "sub/P3.nii.gz"}
    manifest = json.loads((tmp_path / "again/bulk.json").read_text())
    assert manifest["left_out"] == ["P1/lungs.dcm", "notes.txt"]
    (tmp_path / "masks").mkdir()
    (scans / "P1/lungs.dcm").rename(tmp_path / "masks/lungs.dcm")
    with pytest.raises(InputError, match=r"holds no slice and no CT; .*such as lungs\.dcm"):
        run(tmp_path / "masks", tmp_path / "nothing", model=str(model_base_path))


def test_link_to_nowhere_is_refused(model_base_path: Path, tmp_path: Path) -> None:
    write_slices(tmp_path / "slices")
    read = storage.list_files
    (tmp_path / "slices/gone.bmp").write_bytes(b"")
    files = read(str(tmp_path / "slices"))
    (tmp_path / "slices/gone.bmp").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "list_files", lambda root: files if "slices" in root else read(root))
        (refused,) = run(tmp_path / "slices", tmp_path / "out", model=str(model_base_path)).refused
    assert refused.file == "gone.bmp"
    assert refused.reason.startswith("cannot be read (No such file or directory)")


def test_results_need_a_folder_of_their_own(model_base_path: Path, tmp_path: Path) -> None:
    write_slices(tmp_path / "slices")
    with pytest.raises(InputError, match="is the input too; expected another folder"):
        run(tmp_path / "slices", f"{tmp_path}/slices/", model=str(model_base_path))


def test_two_series_of_one_folder_are_two_results(model_base_path: Path, tmp_path: Path) -> None:
    _, mask = chest((6, 64, 64))
    hounsfield = np.where(mask > 0, -850, 40).astype(np.int16)
    write_series(tmp_path / "scans", hounsfield)
    write_series(tmp_path / "scans", hounsfield, order=lambda index: 100 + index)
    run(tmp_path / "scans", tmp_path / "out", model=str(model_base_path))
    names = sorted(lines(tmp_path / "out"))
    assert len(names) == 2
    assert all(name.startswith("_root/series_") for name in names)
    assert all((tmp_path / "out/scans" / name / "lungs.dcm").is_file() for name in names)


def test_archive_without_any_slice_is_told(model_base_path: Path, tmp_path: Path) -> None:
    def mr(index: int, header: Any) -> None:
        header.Modality, header.SOPClassUID = "MR", MRImageStorage

    write_series(tmp_path / "scans", chest()[0], change=mr)
    with pytest.raises(InputError, match="holds no slice and no CT; the 6 files that were looked"):
        run(tmp_path / "scans", tmp_path / "out", model=str(model_base_path))


def test_relative_folders_are_those_of_the_command(
    model_base_path: Path, tmp_path: Path, monkeypatch
) -> None:
    write_slices(tmp_path / "slices")
    monkeypatch.chdir(tmp_path)
    assert run("slices", "./slices/out", model=str(model_base_path)).num_results == 7
    assert run("./slices/", "slices/out", model=str(model_base_path)).num_finished_before == 3
    assert len(lines(tmp_path / "slices/out")) == 7


def test_folder_named_like_a_pattern_is_a_folder(model_base_path: Path, tmp_path: Path) -> None:
    write_slices(tmp_path / "s[1]*")
    options = {"model": str(model_base_path)}
    assert run(tmp_path / "s[1]*", tmp_path / "o[1]", **options).num_results == 7
    assert run(tmp_path / "s[1]*", tmp_path / "o[1]", **options).num_finished_before == 3
    with pytest.raises(InputError, match="holds a character that Beam reads as a pattern"):
        run("bucket://a[1]", tmp_path / "out", **options)


def test_full_disk_is_told(model_base_path: Path, tmp_path: Path, monkeypatch) -> None:
    write_slices(tmp_path / "slices")
    publish = storage.publish

    def fail(address: str, content: bytes) -> None:
        if address.endswith(".gz"):
            raise OSError(28, "No space left on device")
        publish(address, content)

    monkeypatch.setattr(storage, "publish", fail)
    with pytest.raises(JobFailedError, match=r"cannot write to .*No space left on device; make ro"):
        run(tmp_path / "slices", tmp_path / "out", model=str(model_base_path))


def test_slice_that_vanishes_is_told(model_base_path: Path, tmp_path: Path, monkeypatch) -> None:
    write_slices(tmp_path / "slices")
    read = storage.read

    def fail(address: str) -> bytes:
        if address.endswith("z003.png"):
            raise OSError(5, "Input/output error")
        return read(address)

    monkeypatch.setattr(storage, "read", fail)
    with pytest.raises(JobFailedError, match=r"1 of 3 shards .*Input/output error; run again when"):
        run(tmp_path / "slices", tmp_path / "out", model=str(model_base_path))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), "there is nothing to segment among 0 files; expected .bmp"),
        (("a.bmp", "b.nii"), "holds both, 1 DICOM or NIfTI files (such as b.nii) and 1 images"),
    ],
)
def test_input_that_cannot_be_segmented_is_told(
    model_base_path: Path, tmp_path: Path, files: tuple[str, ...], expected: str
) -> None:
    (tmp_path / "in").mkdir()
    for name in files:
        (tmp_path / "in" / name).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        run(tmp_path / "in", tmp_path / "out", model=str(model_base_path))
    assert expected in str(caught.value)


def test_model_that_is_none_is_told(tmp_path: Path) -> None:
    write_slices(tmp_path / "slices")
    with pytest.raises(InputError, match=r"--model .*nowhere holds no SavedModel and no version"):
        run(tmp_path / "slices", tmp_path / "out", model=str(tmp_path / "nowhere"))


def test_options_of_the_engine_are_checked(tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError, match="Beam has no option --direct_num_wrokers"):
        run(tmp_path, tmp_path / "out", beam_options=("--direct_num_wrokers=2",))
    with pytest.raises(SystemExit):
        main(["predict", "x", "--out", "y", "--", "--direct_num_workers=2"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"window": 0}, "--window is 0; expected 1 to 256"),
        ({"slices_per_shard": 0}, "--slices-per-shard is 0; expected 1 or more"),
        ({"model": "m", "model_label": "stable"}, "are of a server; with --model give the folder"),
        ({"read": "all"}, "--read is 'all'; expected auto or slices or volumes"),
        ({"window_width_hu": 0}, "expected Hounsfield units with a width of at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        BulkConfig(inputs="in", out="out", **options)


@pytest.fixture(autouse=True)
def _keep_loggers() -> Iterator[None]:
    """The command adds filters to the handlers of the root logger."""
    import logging

    handlers = {handler: list(handler.filters) for handler in logging.getLogger().handlers}
    yield
    for handler, filters in handlers.items():
        handler.filters[:] = filters
