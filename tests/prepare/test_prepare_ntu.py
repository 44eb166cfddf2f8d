"""NTU RGB+D: .skeleton files of the exact format, all their defects, and the split rules."""

import gzip
import json

import numpy as np
import pytest

from tsmjax.data.skeleton import SkeletonData
from tsmjax.data.synthetic.skeletons import clip, place
from tsmjax.errors import InputError
from tsmjax.prepare import ntu
from tsmjax.prepare.__main__ import main
from tsmjax.prepare.denoise import Body, people, tracks
from tsmjax.prepare.ntu import read_list, split_sizes
from tsmjax.prepare.skeleton_file import parse, parse_name, write


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Twelve clips as files: six actions, the last one of two people; one nested, one foreign."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "more").mkdir()
    for index in range(12):
        at = place(index, 6)
        name = "S{setup:03d}C{camera:03d}P{subject:03d}R{repetition:03d}".format(**at)
        name = f"{name}A{at['action'] + 1:03d}.skeleton"
        joints = clip(0, at["action"], at["subject"], at["camera"], index, 20)
        write(folder / "more" / name if index == 7 else folder / name, joints)
    (folder / "notes.skeleton").write_text("0\n")
    return folder


def lines_of(tmp_path, change):
    """Write a clip of two bodies and three frames, change its lines, and parse it."""
    joints = clip(0, 5, 1, 1, 0, 3)[:, :3]
    path = tmp_path / "S001C001P001R001A006.skeleton"
    write(path, joints)
    lines = path.read_text().splitlines()
    path.write_text(change(lines))
    return joints, path


def test_a_clip_survives_the_file(tmp_path):
    joints, path = lines_of(tmp_path, "\n".join)
    bodies, frames = parse(path)
    assert frames == joints.shape[1] and len(bodies) == 2
    for body, expected in zip(bodies, joints, strict=True):
        np.testing.assert_allclose(body.joints, expected, atol=1e-6)
        np.testing.assert_array_equal(body.frames, np.arange(frames))


def test_blank_lines_and_windows_line_ends_are_tolerated(tmp_path):
    _, path = lines_of(tmp_path, lambda lines: "\r\n".join([*lines[:2], "", *lines[2:], "", " "]))
    assert parse(path)[1] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:40], "ends after line 40, where the values of a joint should follow"),
        (lambda x: x[:1], "ends after line 1, where the number of bodies of frame 1 of 3"),
        (lambda x: [], "ends after line 0, where the number of frames"),
        (lambda x: ["3.5", *x[1:]], "line 1 is '3.5', but must be the number of frames"),
        (lambda x: [*x[:3], "20", *x[4:]], "line 4 says 20 joints, but a body has 25"),
        (lambda x: [*x[:5], x[5][:20], *x[6:]], "values, but 12 values of a joint belong there"),
        (lambda x: [*x[:2], x[2] + " 1", *x[3:]], "line 3 has 11 values, but 10 properties"),
        (lambda x: [*x, "17"], "goes on in line"),
        (lambda x: [*x[:5], "zero" + x[5], *x[6:]], "where a number belongs"),
        (lambda x: [*x[:29], x[2], *x[30:]], "which is twice in frame 1"),
    ],
)
def test_a_damaged_file_is_told_with_its_line(tmp_path, change, message):
    _, path = lines_of(tmp_path, lambda lines: "\n".join(change(lines)))
    with pytest.raises(InputError, match=message) as caught:
        parse(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "-inf", "-1.#IND", "1.#QNAN"])
def test_a_number_that_is_not_finite_makes_the_joint_untracked(tmp_path, text):
    def change(lines):
        fields = lines[4].split()
        return "\n".join([*lines[:4], " ".join([fields[0], text, *fields[2:]]), *lines[5:]])

    joints, path = lines_of(tmp_path, change)
    found = parse(path)[0][0].joints
    assert np.isnan(found[0, 0]).all()
    np.testing.assert_allclose(found[0, 1:], joints[0, 0, 1:], atol=1e-6)


def test_names_tell_setup_camera_subject_repetition_and_action():
    assert parse_name("S017C003P040R002A060.skeleton") == (17, 3, 40, 2, 60)
    for name in ("S1C1P1R1A1", "S001C001P001R001A000", "S001C001P001R001A001.txt"):
        assert parse_name(name) is None


def test_a_folder_becomes_a_data_set_that_can_be_resumed(raw, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tsmjax.prepare.ntu.CLIPS_OF_A_FILE", 5)
    missing = tmp_path / "missing.txt"
    missing.write_text("Samples with missing skeletons:\n\n\nS001C001P001R001A001\n")
    command = f"ntu --src {raw} --dst {tmp_path / 'ntu'} --missing {missing} --workers 1".split()
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "11 files" in told and "xsub: 11 to train on, 0 to test on" in told
    assert not (tmp_path / "ntu").exists()
    assert main(command) == 0
    data = SkeletonData(str(tmp_path / "ntu"))
    assert (data.facts.dataset, len(data), len(data.facts.labels)) == ("ntu60", 11, 60)
    number = [data.name(i) for i in range(len(data))].index("S002C001P002R001A006")
    assert data.labels[number] == 5 and data.fields["setup"][number] == 2
    expected = clip(0, 5, 2, 1, 11, 20).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(data.joints([number])[0], expected, atol=1e-5)
    report = json.loads((tmp_path / "ntu" / "report.json").read_text())
    why = dict(report["dropped"])
    assert "form S001C001P001R001A001" in why["notes.skeleton"]
    assert why["S001C001P001R001A001"] == "it is listed as without a skeleton"
    files = sorted((tmp_path / "ntu").glob("*.arrow"))
    sums = (tmp_path / "ntu" / "SHA256SUMS").read_text()
    assert len(files) == 3 and all(file.name in sums for file in files)

    # A part that is there is kept, one that is not is made again, with the same bytes.
    old = files[0].stat().st_mtime_ns
    (tmp_path / "ntu" / f"{files[1].name}.json").unlink()
    assert main(command) == 0
    assert files[0].stat().st_mtime_ns == old
    assert (tmp_path / "ntu" / "SHA256SUMS").read_text() == sums
    assert main([*command, "--float16"]) == 2
    assert "was begun with other float16" in capsys.readouterr().err


def test_damaged_files_stop_the_run_or_are_left_out_and_empty_clips_are_reported(
    raw, tmp_path, capsys
):
    folder = tmp_path / "raw"
    folder.mkdir()
    good = next(raw.glob("S*.skeleton"))
    (folder / good.name).write_text(good.read_text())
    (folder / "S001C001P003R001A001.skeleton").write_text("2\n0\n0\n")
    (folder / "S001C001P003R001A002.skeleton").write_text(good.read_text()[:5000])
    command = f"ntu --src {folder} --dst {tmp_path / 'ntu'} --workers 1 --float16".split()
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "S001C001P003R001A002.skeleton" in told and "--skip-damaged" in told
    assert main([*command, "--skip-damaged"]) == 0
    why = dict(json.loads((tmp_path / "ntu" / "report.json").read_text())["dropped"])
    assert why["S001C001P003R001A001"] == "there is nobody in any of its 2 frames"
    assert "copy the file again" in why["S001C001P003R001A002"]
    data = SkeletonData(str(tmp_path / "ntu"))
    assert len(data) == 1 and data.joints([0])[0].dtype == np.float16


def body(number, frames, scale=1.0, wide=False):
    rng = np.random.default_rng(int(number))
    joints = rng.normal(size=(len(frames), 25, 3)) * scale * [0.3, 1.0, 0.3]
    return Body(number, np.asarray(frames), joints[..., [1, 0, 2]] if wide else joints)


def test_short_and_wide_bodies_are_no_people_and_the_liveliest_comes_first():
    calm, lively = body("1", range(30)), body("2", range(30), 2.0)
    short, chair = body("3", range(11)), body("4", range(30), 3.0, wide=True)
    kept, why = people([calm, short, chair, lively])
    assert [found.number for found in kept] == ["2", "1"]
    assert any("body 3 was seen in 11 frames" in reason for reason in why)
    assert any("body 4 is wider than high" in reason for reason in why)
    assert people([short])[0] == [short] and people([chair])[0] == [chair]


def test_a_person_found_again_continues_the_track_and_gaps_stay_empty():
    first, again = body("1", range(12)), body("2", range(15, 30))
    other = body("3", range(5, 25))
    third = body("4", range(10, 20))
    clip_, why = tracks([first, again, other, third], 30)
    assert clip_.shape == (2, 30, 25, 3)
    away = np.isnan(clip_).all(axis=(2, 3))
    assert away[0].nonzero()[0].tolist() == [12, 13, 14]
    assert (~away[1]).nonzero()[0].tolist() == list(range(5, 25))
    assert why == ["body 4 found no free track"]


def test_splits_have_the_published_sizes(test_data):
    folder = test_data / "data" / "skeleton" / "ntu_lists"
    if not folder.exists():
        pytest.skip("the lists of NTU names are not there")

    def names(number):
        with gzip.open(folder / f"ntu{number}_skes_available_name.txt.gz", "rt") as file:
            return [parse_name(line.strip()) for line in file]

    small, large = split_sizes(names(60), "ntu60"), split_sizes(names(120), "ntu120")
    assert small == {"xsub": (40091, 16487), "xview": (37646, 18932)}
    assert large == {"xsub": (63026, 50919), "xset": (54468, 59477)}
    missing = read_list(folder / "ntu60_samples_with_missing_skeletons.txt.gz")
    assert len(missing) == 302
    lost = split_sizes([parse_name(name) for name in missing], "ntu60")
    assert lost == {"xsub": (229, 73), "xview": (274, 28)}


def test_splits_of_synthetic_names():
    names = [
        parse_name(f"S{s:03d}C{c:03d}P{p:03d}R001A001")
        for s, c, p in [(1, 1, 1), (2, 2, 3), (3, 3, 103), (18, 1, 45), (32, 2, 106)]
    ]
    assert split_sizes(names, "ntu120") == {"xsub": (3, 2), "xset": (3, 2)}
    assert split_sizes(names, "ntu60") == {"xsub": (3, 2), "xview": (3, 2)}


def test_a_destination_in_use_is_refused(raw, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="is not empty"):
        ntu.run(["--src", str(raw), "--dst", str(tmp_path)])
