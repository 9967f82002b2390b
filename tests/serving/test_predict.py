import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from serving import predict
from serving.config import PredictConfig
from serving.embedded.server import EmbeddedServer
from serving.errors import InputError
from serving.results import Summary

WriteSlice = Callable[..., Path]
SMALL = np.array([[10, 200], [99, 101]], np.uint8)


def run(source: Path, out: Path, target: str, **options: Any) -> tuple[Summary, list[str]]:
    failures: list[str] = []
    config = PredictConfig(inputs=[source], out=out, target=target, **options)
    return predict.run(config, on_failure=failures.append), failures


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("signature", ["serving_default", "encoded"])
def test_folder_with_a_bad_file_gives_masks_for_the_others(
    server: EmbeddedServer,
    write_slice: WriteSlice,
    tmp_path: Path,
    gray_image: np.ndarray,
    signature: str,
) -> None:
    write_slice("patient/a.bmp", gray_image)
    write_slice("b.2.png", SMALL)
    (tmp_path / "slices" / "c.bmp").write_bytes(b"<html>no slice</html>")
    (tmp_path / "slices" / "notes.txt").write_text("not a slice")
    out = tmp_path / "out"
    summary, failures = run(
        tmp_path / "slices", out, server.target, signature=signature, flips="none"
    )

    assert read(out / "masks" / "b.2.png").tolist() == [[255, 0], [255, 0]]
    mask = read(out / "masks" / "patient" / "a.png")
    assert mask.dtype == np.uint8
    assert mask[:, :10].min() == 255
    assert mask[:, 10:].max() == 0
    assert read(out / "overlays" / "b.2.png").shape == (512, 512, 3)
    assert read(out / "overlays" / "patient" / "a.png").shape == (340, 510, 3)
    assert len(failures) == 1
    assert failures[0].startswith(str(tmp_path / "slices" / "c.bmp"))
    assert summary.figures()["num_masks"] == 2
    document = json.loads((out / "summary.json").read_text())
    assert document["options"]["answered_version"] == 3
    assert document["slices"][0]["lung_area_px"] == 2
    assert document["slices"][0]["lung_fraction"] == 0.5
    assert sorted(path.name for path in out.iterdir()) == [
        "journal.jsonl",
        "masks",
        "overlays",
        "summary.csv",
        "summary.json",
    ]


@pytest.mark.parametrize("signature", ["serving_default", "encoded"])
def test_masks_are_cleaned_where_that_is_asked_for(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path, signature: str
) -> None:
    image = np.full((200, 200), 200, np.uint8)
    image[50:150, 40:80] = 10  # lung for the tiny model
    image[70:72, 50:52] = 200  # a vessel: 4 pixels of 40,000
    image[180:181, 180:182] = 10  # a speck of 2 pixels
    path = write_slice("a.png", image)
    areas = {}
    for postprocess in (False, True):
        out = tmp_path / str(postprocess)
        options = {"signature": signature, "flips": "none", "postprocess": postprocess}
        summary, failures = run(path, out, server.target, **options)
        assert not failures
        mask = read(out / "masks" / "a.png")
        assert set(np.unique(mask)) == {0, 255}
        areas[postprocess] = int(np.count_nonzero(mask))
        assert summary.results[0].lung_area_px == areas[postprocess]
        assert json.loads((out / "summary.json").read_text())["options"].items() >= options.items()
    assert areas == {False: 4000 - 4 + 2, True: 4000}


@pytest.mark.parametrize("flips", ["none", "horizontal", "all"])
def test_model_that_flips_do_not_disturb_gives_the_same_mask_with_them(
    server: EmbeddedServer,
    write_slice: WriteSlice,
    tmp_path: Path,
    gray_image: np.ndarray,
    flips: str,
) -> None:
    path = write_slice("a.png", gray_image)
    run(path, tmp_path / "out", server.target, flips=flips)
    mask = read(tmp_path / "out" / "masks" / "a.png")
    np.testing.assert_array_equal(mask, np.where(gray_image < 100, 255, 0))
    options = json.loads((tmp_path / "out" / "summary.json").read_text())["options"]
    assert options["flips"] == flips


def test_single_file_may_have_any_name(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    path = write_slice("x.png", SMALL).rename(tmp_path / "slice-17")
    summary, _ = run(path, tmp_path / "out", server.target, overlays=False)
    assert not summary.failed
    assert [p.name for p in (tmp_path / "out" / "masks").iterdir()] == ["slice-17.png"]
    assert not (tmp_path / "out" / "overlays").exists()


def test_slices_may_lie_in_the_folder_of_the_results(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    folder = write_slice("a.bmp", SMALL).parent
    for _ in range(2):
        summary, _ = run(folder, tmp_path, server.target)
        assert len(summary.results) == 1
        summary, _ = run(tmp_path, tmp_path, server.target)
        assert len(summary.results) == 1


def test_slice_that_fails_later_keeps_no_mask_of_an_earlier_run(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    write_slice("a.bmp", SMALL)
    path = write_slice("b.bmp", SMALL)
    run(path.parent, tmp_path / "out", server.target)
    path.write_bytes(b"<html>no slice</html>")
    run(path.parent, tmp_path / "out", server.target)
    for kind in ("masks", "overlays"):
        assert [entry.name for entry in (tmp_path / "out" / kind).iterdir()] == ["a.png"]


def test_run_without_overlays_leaves_none_of_an_earlier_run(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    path = write_slice("a.bmp", SMALL)
    for overlays in (True, False):
        run(path, tmp_path / "out", server.target, overlays=overlays)
        assert (tmp_path / "out" / "overlays" / "a.png").exists() == overlays


def test_second_run_into_the_same_folder_leaves_its_own_results_alone(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    folder = write_slice("a.bmp", SMALL).parent
    for _ in range(2):
        summary, _ = run(folder, folder / "out", server.target)
        assert len(summary.results) == 1


def test_missing_server_ends_the_run_at_the_first_slice(
    closed_port: int, write_slice: WriteSlice, tmp_path: Path
) -> None:
    for index in range(20):
        write_slice(f"{index}.bmp", SMALL)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.csv").write_text("of an earlier run")
    summary, failures = run(tmp_path / "slices", tmp_path / "out", f"localhost:{closed_port}")
    assert (tmp_path / "out" / "summary.csv").read_text() == "of an earlier run"
    assert failures == []
    assert summary.results == []
    assert summary.stopped.startswith("stopped with 20 slices left: no server answers at")


def test_unknown_model_ends_the_run_at_the_first_slice(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    folder = write_slice("a.bmp", SMALL).parent
    summary, _ = run(folder, tmp_path / "out", server.target, model_name="other")
    assert summary.stopped.startswith(f"{server.target} serves no model other")


def test_server_that_never_answers_ends_the_run_at_the_third_slice(
    slow_server: Any, write_slice: WriteSlice, tmp_path: Path
) -> None:
    for index in range(5):
        write_slice(f"{index}.bmp", SMALL)
    summary, failures = run(
        tmp_path / "slices", tmp_path / "out", slow_server.target, timeout_s=0.1
    )
    assert len(failures) == 2
    assert summary.stopped.startswith("stopped with 3 slices left: ")
    assert 3 <= len(slow_server.requests) <= 4 + 3  # no more than a window ahead


def test_server_that_refuses_all_is_not_asked_for_ever(
    fake_server: Callable[..., Any], write_slice: WriteSlice, tmp_path: Path
) -> None:
    def refuse(request: Any, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not my kind of slice")
        raise NotImplementedError

    for index in range(15):
        write_slice(f"{index}.bmp", SMALL)
    fake = fake_server(refuse)
    summary, failures = run(tmp_path / "slices", tmp_path / "out", fake.target)
    assert len(failures) == 9
    assert summary.stopped.startswith("stopped with 6 slices left: ")
    assert "not my kind of slice" in summary.stopped


def test_folder_that_cannot_be_written_is_told(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    folder = write_slice("a.bmp", SMALL).parent
    (tmp_path / "out").write_text("a file is in the way")
    with pytest.raises(InputError, match="out cannot be written: .*give another --out"):
        run(folder, tmp_path / "out", server.target)


def test_second_run_skips_what_the_first_has_finished(
    server: EmbeddedServer,
    write_slice: WriteSlice,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    for name in ("a", "b", "c", "d"):
        write_slice(f"{name}.bmp", SMALL)
    folder, out = tmp_path / "slices", tmp_path / "out"
    (folder / "e.bmp").write_bytes(b"<html>no slice</html>")
    first, _ = run(folder, out, server.target)
    assert first.figures()["num_masks"] == 4
    times = {path.name: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}

    write_slice("b.bmp", SMALL.T)
    (out / "masks" / "c.png").unlink()
    (out / "overlays" / "d.png").unlink()
    write_slice("e.bmp", SMALL)
    second, failures = run(folder, out, server.target)
    assert not failures
    assert second.num_finished_before == 1
    assert [Path(result.file).name for result in second.results] == [
        f"{name}.bmp" for name in "abcde"
    ]
    assert "1 of 5 slices have their masks from an earlier run (model version 3)" in caplog.text
    assert (out / "masks" / "a.png").stat().st_mtime_ns == times["a.png"]
    assert read(out / "masks" / "b.png").tolist() == [[255, 255], [0, 0]]
    assert len((out / "summary.csv").read_text().splitlines()) == 6
    assert "1 mask of an earlier run" in second.to_text()

    third, _ = run(folder, out, server.target)
    assert third.num_finished_before == 5
    assert third.figures()["num_masks"] == 5
    again, _ = run(folder, out, server.target, resume=False)
    assert again.num_finished_before == 0


def test_results_of_another_slice_are_not_taken_for_those_of_this_one(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    first = write_slice("A/1.bmp", SMALL).parent
    other = write_slice("B/1.bmp", SMALL.T).parent
    out = tmp_path / "out"
    for folder in (first, other, first):
        summary, _ = run(folder, out, server.target)
        assert summary.num_finished_before == 0
    assert read(out / "masks" / "1.png").tolist() == [[255, 0], [255, 0]]
    assert run(first, out, server.target)[0].num_finished_before == 1


def test_slices_that_are_refused_do_not_end_a_run_that_goes_on(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    folder, out = write_slice("z.png", SMALL).parent, tmp_path / "out"
    run(folder, out, server.target, signature="encoded")
    for index in range(12):
        write_slice(f"a{index}.tif", SMALL)  # read here, refused there
    write_slice("zz.png", SMALL)
    summary, failures = run(folder, out, server.target, signature="encoded")
    assert not summary.stopped
    assert len(failures) == 12
    assert summary.figures()["num_masks"] == 2


def test_other_settings_begin_anew(
    server: EmbeddedServer,
    write_slice: WriteSlice,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_slice("a.bmp", SMALL)
    run(path, tmp_path / "out", server.target)
    summary, _ = run(path, tmp_path / "out", server.target, postprocess=False, masks_as=["npy"])
    assert summary.num_finished_before == 0
    assert "holds results of other settings (masks_as, postprocess)" in caplog.text
    assert [entry.name for entry in (tmp_path / "out" / "masks").iterdir()] == ["a.npy"]
    summary, _ = run(path, tmp_path / "out", server.target, postprocess=False, masks_as=["npy"])
    assert summary.num_finished_before == 1


def test_run_that_was_killed_while_it_wrote_goes_on(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path
) -> None:
    write_slice("a.bmp", SMALL)
    folder = write_slice("b.bmp", SMALL).parent
    journal = tmp_path / "out" / "journal.jsonl"
    run(folder, tmp_path / "out", server.target)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    for kept, num_finished in ((b"".join(lines)[:-9], 1), (lines[0][:-9], 0), (b"", 0)):
        journal.write_bytes(kept)
        summary, _ = run(folder, tmp_path / "out", server.target)
        assert summary.num_finished_before == num_finished
        assert summary.num_masks == 2
        assert len(journal.read_bytes().splitlines()) == 3


def test_each_format_holds_the_same_mask(
    server: EmbeddedServer, write_slice: WriteSlice, tmp_path: Path, gray_image: np.ndarray
) -> None:
    path = write_slice("a.bmp", gray_image)
    summary, _ = run(path, tmp_path / "out", server.target, masks_as=["rle", "npy", "png"])
    folder = tmp_path / "out" / "masks"
    mask = np.load(folder / "a.npy")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask * 255, read(folder / "a.png"))
    runs = json.loads((folder / "a.json").read_text())
    assert runs["size"] == [20, 30]
    assert runs["area_px"] == summary.results[0].lung_area_px == mask.sum()


def test_slices_are_under_way_at_the_same_time(
    fake_server: Callable[..., Any], write_slice: WriteSlice, tmp_path: Path
) -> None:
    together = threading.Barrier(3, timeout=20)

    def answer(request: Any, context: grpc.ServicerContext) -> bytes:
        together.wait()
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such slice")
        raise NotImplementedError

    for name in ("a", "b", "c"):
        write_slice(f"{name}.bmp", SMALL)
    _, failures = run(tmp_path / "slices", tmp_path / "out", fake_server(answer).target, window=3)
    assert [Path(line.split(": ")[0]).name for line in failures] == ["a.bmp", "b.bmp", "c.bmp"]
