import json

from tsmjax.monitor import provenance


def test_each_start_leaves_an_entry(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "rows.arrow").write_bytes(b"x" * 100)
    config = {"seed": 3, "data": {"sources": [{"path": str(data), "weight": 1.0}], "mode": "a/b"}}
    provenance.write(tmp_path, config, {"replica": 2, "fsdp": 4})
    (tmp_path / "data" / "rows.arrow").write_bytes(b"y" * 100)
    provenance.write(tmp_path, config, {"replica": 2, "fsdp": 4})
    first, second = json.loads((tmp_path / "provenance.json").read_text())
    assert first["mesh"] == {"replica": 2, "fsdp": 4} and first["seed"] == 3
    assert first["versions"]["jax"] and first["devices"] == {"kind": "cpu", "count": 8}
    assert set(first["data"]) == {str(data)} and first["data"][str(data)]["bytes"] == 100
    assert first["data"][str(data)]["digest"] != second["data"][str(data)]["digest"]
    assert first["git_changes"] in (True, False, None) and first["command"]


def test_a_digest_follows_names_sizes_and_both_ends_of_a_file(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    file = folder / "x"

    def digest(content, name="x"):
        for old in folder.iterdir():
            old.unlink()
        (folder / name).write_bytes(content)
        return provenance.manifest(folder)["digest"]

    large = bytearray(300_000)
    plain = digest(large)
    assert digest(large) == plain
    assert digest(large, "y") != plain
    assert digest(large + b"\0") != plain
    for at in (0, 299_999):
        changed = bytearray(large)
        changed[at] = 1
        assert digest(changed) != plain
    (folder / "x").write_bytes(b"1")
    assert provenance.manifest(file)["files"] == 1
