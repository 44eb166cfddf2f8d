"""NW-UCLA, UTD-MHAD, CTR-GCN's .npz and pyskl's pickles become skeleton data sets."""

import json
import pickle
import tarfile

import numpy as np
import pytest

from tsmjax.data.skeleton import DataConfig, SkeletonData
from tsmjax.prepare.__main__ import main

RNG = np.random.default_rng(0)


def prepared(command, folder):
    assert main([*command, "--dst", str(folder)]) == 0
    return SkeletonData(str(folder))


def test_ucla_from_a_folder_or_an_archive(tmp_path, capsys):
    raw = tmp_path / "raw"
    raw.mkdir()
    for view, frames in ((1, 1), (2, 7), (3, 5)):
        joints = RNG.normal(size=(frames, 20, 3)).round(5)
        clip = {"file_name": "x", "skeletons": joints.tolist(), "label": 10}
        (raw / f"a12_s03_e04_v0{view}.json").write_text(json.dumps(clip))
    with tarfile.open(tmp_path / "raw.tar.xz", "w:xz") as archive:
        archive.add(raw, "all_sqe")
    data = prepared(["ucla", "--src", str(raw)], tmp_path / "a")
    same = prepared(["ucla", "--src", str(tmp_path / "raw.tar.xz")], tmp_path / "b")
    assert [data.name(i) for i in range(3)] == [f"a12_s03_e04_v0{view}" for view in (1, 2, 3)]
    assert data.facts == same.facts and data.facts.labels[data.labels[0]] == "carry"
    np.testing.assert_allclose(data.joints([2])[0], joints.transpose(1, 2, 0)[None], rtol=1e-6)
    np.testing.assert_array_equal(data.joints([1])[0], same.joints([1])[0])
    config = DataConfig(protocol="xview")
    assert data.part("train", config, 0).tolist() == [0, 1]
    assert data.part("test", config, 0).tolist() == [2]

    (raw / "a12_s03_e04_v03.json").write_text('{"label": 3}')
    assert main(["ucla", "--src", str(raw), "--dst", str(tmp_path / "c")]) == 2
    assert "a12_s03_e04_v03.json" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["ucla", "--src", str(tmp_path / "empty"), "--dst", str(tmp_path / "c")]) == 2
    assert "holds no .json files" in capsys.readouterr().err


def test_utd_mhad(tmp_path, capsys):
    io = pytest.importorskip("scipy.io")
    raw = tmp_path / "raw"
    raw.mkdir()
    joints = RNG.normal(size=(20, 3, 6))
    for subject in (1, 2):
        io.savemat(raw / f"a27_s{subject}_t1_skeleton.mat", {"d_skel": joints})
    data = prepared(["utd_mhad", "--src", str(raw)], tmp_path / "a")
    assert data.facts.joints[0] == "head" and data.labels.tolist() == [26, 26]
    np.testing.assert_allclose(data.joints([0])[0], joints[None], rtol=1e-6)
    assert data.part("train", DataConfig(), 0).tolist() == [0]
    (raw / "a27_s1_t1_skeleton.mat").write_bytes(b"no")
    assert main(["utd_mhad", "--src", str(raw), "--dst", str(tmp_path / "b")]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_npz_of_ctrgcn_loses_its_padding_and_copies_of_bodies(tmp_path, capsys):
    x = np.zeros((3, 10, 2, 25, 3), np.float32)
    x[0, :4, 0] = RNG.normal(size=(4, 25, 3))
    x[1, :6] = RNG.normal(size=(6, 1, 25, 3))  # one body, copied into the second place
    x[2, :5, 0], x[2, 2:5, 1] = 1.0, 2.0
    y = np.eye(60)[[3, 4, 59]]
    x = x.reshape(3, 10, 150)
    path = tmp_path / "NTU60_CS.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    data = prepared(["ctrgcn", "--src", str(path)], tmp_path / "a")
    shapes = [clip.shape for clip in data.joints(np.arange(4))]
    assert shapes == [(1, 25, 3, 4), (1, 25, 3, 6), (2, 25, 3, 5), (1, 25, 3, 4)]
    assert np.isnan(data.joints([2])[0][1, :, :, :2]).all()
    config = DataConfig(protocol="given")
    assert data.part("train", config, 0).tolist() == [0, 1, 2]
    assert data.labels.tolist() == [3, 4, 59, 3]
    np.savez(path, x_train=x[:, :, :75])
    assert main(["ctrgcn", "--src", str(path), "--dst", str(tmp_path / "b")]) == 2
    assert "x_train (3, 10, 75)" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_pickles_of_pyskl_are_read_and_run_nothing(tmp_path, capsys):
    keypoint = RNG.normal(size=(1, 7, 25, 3)).astype(np.float16)
    names = [f"S001C001P00{subject}R001A002" for subject in (1, 3)]
    content = {
        "split": {"xsub_train": names[:1], "xsub_val": names[1:]},
        "annotations": [
            {"frame_dir": name, "label": 1, "keypoint": keypoint, "total_frames": 7}
            for name in names
        ],
    }
    path = tmp_path / "ntu.pkl"
    path.write_bytes(pickle.dumps(content))
    data = prepared(["pyskl", "--src", str(path), "--split", "xsub"], tmp_path / "a")
    assert data.facts.dataset == "ntu60" and data.fields["subject"].tolist() == [1, 3]
    for protocol in ("given", "xsub"):
        assert data.part("train", DataConfig(protocol=protocol), 0).tolist() == [0]
    np.testing.assert_allclose(
        data.joints([0])[0], keypoint.transpose(0, 2, 3, 1).astype(np.float32)
    )
    command = ["pyskl", "--src", str(path), "--dst", str(tmp_path / "b"), "--split"]
    assert main([*command, "xvew"]) == 2
    assert "no split 'xvew'" in capsys.readouterr().err
    path.write_bytes(pickle.dumps({**content, "annotations": Evil()}))
    assert main([*command, "xsub"]) == 2
    told = capsys.readouterr()
    assert "asks to call" in told.err and "run" not in told.out
