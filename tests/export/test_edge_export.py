"""Skeleton models in int8 and as LiteRT files: what they say of test clips, and what is refused."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from drawing import drawn

from configs import last_test
from tsmjax import checkpoint, config
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.synthetic.skeletons import rows
from tsmjax.errors import InputError
from tsmjax.export import edge, int8
from tsmjax.export import head as heads
from tsmjax.export.__main__ import main
from tsmjax.export.onnx import file
from tsmjax.models import last
from tsmjax.nn.functional import abstract

TINY = {
    **{"net": "shiftfuse", "size": "nano", "channels": (8, 8, 8), "blocks": (1, 1, 1)},
    **{"frames": 8, "num_classes": 3, "streams": ("joint_velocity", "bone_velocity")},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Random weights, and clips."""
    folder = tmp_path_factory.mktemp("edge")
    write_dataset(rows(0, 48, clips=48, actions=3, frames=12, seed=0), folder / "data")
    values = last_test.get_config().to_dict()
    settings = {
        "model": values["model"] | TINY,
        "task": {"kind": "skeleton"},
        "data": values["data"] | {"path": str(folder / "data"), "frames": 10},
    }
    built = config.resolve(settings).model
    _, params, stats = abstract(lambda rngs: last.Model(built, rngs=rngs))
    artefacts = {"labels": list("abc")}
    checkpoint.save_weights(folder / "run", drawn(params), drawn(stats), settings, artefacts)
    return str(folder / "run")


@pytest.fixture(scope="module")
def described(run):
    """A head of one clip that says different things of different clips, and is always right."""
    head = heads.load(run, {"single": True})
    compiled = jax.jit(head.function)

    def logits(part):
        for inputs, _ in head.labelled(part):
            yield inputs, compiled(head.weights, inputs)["logits"][0]

    params = head.weights["params"]
    kept = params.pop("classifier")
    params |= jax.tree.map(lambda leaf: leaf if leaf.ndim > 1 else 0 * leaf, params)
    params["classifier"], linear = kept, kept["linear"]
    found = np.array([found for _, found in logits("test")])
    spread = found.std(axis=0).mean()
    linear["kernel"] = linear["kernel"] / spread
    linear["bias"] = (linear["bias"] - found.mean(axis=0)) / spread

    def labelled(part):
        return ((inputs, int(found.argmax())) for inputs, found in logits(part))

    return dataclasses.replace(head, labelled=labelled)


def answers(call, head):
    """What a file says of the test clips, their labels, and how its logits follow those of JAX."""
    clips = list(head.labelled("test"))
    logits = np.concatenate([call(inputs) for inputs, _ in clips])
    compiled = jax.jit(head.function)
    wanted = np.concatenate([compiled(head.weights, inputs)["logits"] for inputs, _ in clips])
    follows = np.corrcoef(logits.ravel(), wanted.ravel())[0, 1]
    return logits.argmax(axis=1), np.array([label for _, label in clips]), follows


def test_an_int8_file_computes_convolutions_in_8_bits_and_says_what_jax_says(described, tmp_path):
    path = tmp_path / "out" / "tiny.onnx"
    report = int8.save(described, path, clips=20, source="runs/tiny", allowed=60)
    model = onnx.load(path)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    stored = {
        node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    kernels = [stored[node.input[1]] for node in convolutions if node.input[1] in stored]
    assert len(convolutions) == 1 + 15 and len(kernels) == 15  # the stem is left alone
    for kernel in kernels:
        assert kinds[kernel.input[0]] == onnx.TensorProto.INT8
        assert kernel.attribute[0].name == "axis"  # by channels
    session = onnxruntime.InferenceSession(path)
    said, labels, follows = answers(lambda inputs: session.run(["logits"], inputs)[0], described)
    assert follows > 0.8 and set(labels.tolist()) == {0, 1, 2}
    jax_row, before, after = report.variants
    assert (jax_row.top1, jax_row.agreement, jax_row.error) == (1, 1, 0)
    assert before.agreement == 1 and before.error < 1e-4 < after.error
    assert after.top1 == after.agreement == (said == labels).mean() > 0.5
    assert after.bytes == path.stat().st_size
    assert report.drop == pytest.approx(100 * (1 - after.top1), abs=1e-3)
    told = json.loads(path.with_suffix(".report.json").read_text())
    assert told["calibration"] == {"method": "minmax", "clips": 20}
    assert told["facts"]["labels"] == ["a", "b", "c"] and told["source"] == "runs/tiny"
    assert [row["name"] for row in told["variants"]] == ["jax fp32", "onnx fp32", "onnx int8"]
    assert min(row["milliseconds"] for row in told["variants"]) > 0


def test_a_file_that_loses_too_much_is_not_kept(described, tmp_path, monkeypatch):
    def broken(model, path, *_):
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        for tensor in wrong.graph.initializer:
            if "classifier" in tensor.name:
                values = -onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save_model(wrong, path)

    monkeypatch.setattr(int8, "quantise", broken)
    with pytest.raises(InputError, match=r"names \d.* instead of 100.00 %, .* --max-drop 1;"):
        int8.save(described, tmp_path / "tiny.onnx", clips=2)
    assert not list(tmp_path.iterdir())


def test_a_drop_counts_in_points_and_must_be_below_what_is_allowed(tmp_path):
    right = edge.Variant("jax", 0, 0.9, 1.0, 0.0, 1.0, 1.0)
    close = dataclasses.replace(right, top1=0.8951)
    assert edge.check(tmp_path, right, close, 0.5) == pytest.approx(0.49)
    with pytest.raises(InputError, match=r"89\.51 % of .* instead of 90\.00 %"):
        edge.check(tmp_path, right, close, 0.49)
    with pytest.raises(InputError, match="was not written"):
        edge.check(tmp_path, right, dataclasses.replace(right, error=float("nan")), 1)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_other_calibrations_choose_other_ranges(described, tmp_path, method):
    model, given = file.build(described, 17), edge.calibration(described, 18)
    assert len(given) == 18  # not a multiple of the clips that are in memory together
    scales = []
    for each in ("minmax", method):
        int8.quantise(model, tmp_path / f"{each}.onnx", given, each)
        stored = onnx.load(tmp_path / f"{each}.onnx").graph.initializer
        named = {x.name: onnx.numpy_helper.to_array(x) for x in stored if x.name.endswith("_scale")}
        scales.append(np.array([x for x in named.values() if x.ndim == 0]))
    assert scales[0].shape == scales[1].shape and (scales[1] <= scales[0]).all()
    assert (scales[1] < scales[0]).any() == (method == "percentile")  # so few clips have no tails


@pytest.mark.parametrize("quantise", ["none", "weights", "static"])
def test_a_litert_file_says_what_jax_says(described, tmp_path, quantise):
    pytest.importorskip("litert_converter", reason="needs the extra edge")
    from tsmjax.export import litert

    path = tmp_path / "tiny.tflite"
    report = litert.save(described, path, quantise=quantise, clips=10, allowed=60)
    content = path.read_bytes()
    said, labels, follows = answers(litert.runner(content), described)
    assert follows > 0.8
    last_row = report.variants[-1]
    assert last_row.top1 == (said == labels).mean()
    assert last_row.bytes == len(content)
    if quantise == "none":
        assert last_row.agreement == 1 and last_row.error < 1e-4
        return
    assert last_row.error > 1e-4
    if quantise == "weights":
        assert last_row.bytes < report.variants[1].bytes
    details = litert.Interpreter(model_content=content).get_tensor_details()
    kinds = {each["name"]: np.dtype(each["dtype"]).name for each in details}
    assert kinds["tfl.conv_2d"] == "float32"  # the stem
    assert kinds["tfl.conv_2d1"] == ("int8" if quantise == "static" else "float32")
    assert report.calibration == ({"method": "minmax", "clips": 10} if quantise == "static" else {})


def test_what_litert_does_not_know_is_told(described):
    pytest.importorskip("litert_converter", reason="needs the extra edge")
    from tsmjax.export import litert

    def sorts(weights, batch):
        values = jnp.linalg.eigvalsh(jnp.einsum("bmtvi,bmtvj->bij", *2 * [batch["joints"]]))
        return {"logits": values, "chances": values}

    with pytest.raises(InputError, match=r"cannot be converted to LiteRT: .*; export it as onnx"):
        litert.convert(dataclasses.replace(described, function=sorts))


def test_without_a_front_the_file_takes_streams(run):
    with_front, without = (heads.load(run, {"front": front}) for front in ("streams", "none"))
    assert list(without.inputs) == ["joint_velocity", "bone_velocity", "present"]
    assert without.inputs["bone_velocity"].shape == (None, 1, 8, 25, 3)
    assert with_front.inputs["joints"].shape == (None, 1, 10, 25, 3)
    one, other = (next(iter(head.labelled("train"))) for head in (with_front, without))
    found = [
        jax.jit(head.function)(head.weights, inputs)["logits"]
        for head, (inputs, _) in zip((with_front, without), (one, other), strict=True)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    with pytest.raises(InputError, match=r"--front is .stream. .did you mean"):
        heads.load(run, {"front": "stream"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["int8", "--output", "a.tflite"], "--output is a.tflite, but must end in .onnx"),
        (["litert", "--output", "a.onnx"], "must end in .tflite"),
        (["litert", "--output", "a.tflite", "--calibration", "entropy"], "takes no --calibration"),
        (["onnx", "--output", "a.onnx", "--clips", "9"], "takes no --clips, int8 and litert do"),
        (["int8", "--output", "a.onnx", "--clips", "0"], "--clips is 0"),
        (["int8", "--output", "a.onnx", "--max-drop", "0"], "--max-drop is 0.0"),
        (["int8", "--output", "a.onnx", "--bodies", "2"], "--bodies is 2, but the clips"),
    ],
)
def test_wrong_options_are_one_sentence(run, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--checkpoint", run]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_data_that_are_gone_and_packages_that_are_missing_are_named(
    run, tmp_path, monkeypatch, capsys
):
    data = Path(run).parent / "data"
    data.rename(data.with_name("moved"))
    try:
        assert main(["int8", "--checkpoint", run, "--output", str(tmp_path / "a.onnx")]) == 2
    finally:
        data.with_name("moved").rename(data)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(data) in error and error.count("\n") == 1
    monkeypatch.delitem(sys.modules, "tsmjax.export.litert", raising=False)
    monkeypatch.delattr("tsmjax.export.litert", raising=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    command = ["litert", "--checkpoint", run, "--output", str(tmp_path / "a.tflite")]
    assert main(command) == 2
    assert "pip install 'tsmjax[edge]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("net", last.NETS)
def test_every_net_becomes_a_file_of_one_clip(net, tmp_path):
    pytest.importorskip("litert_converter", reason="needs the extra edge")
    from tsmjax.export import litert

    size = "nano" if "nano" in last.NETS[net].SIZES else "base"
    values = {**TINY, "net": net, "size": size, "family": "last", "streams": ()}
    built = config.resolve({"model": values, "task": {"kind": "skeleton"}}).model
    _, params, stats = abstract(lambda rngs: last.Model(built, rngs=rngs))
    settings = {"model": values, "task": {"kind": "skeleton"}}
    checkpoint.save_weights(tmp_path / "run", drawn(params), drawn(stats), settings, {})
    head = heads.load(str(tmp_path / "run"), {"single": True, "bodies": 2})
    inputs = head.sample(np.random.default_rng(0), 1)
    wanted = jax.jit(head.function)(head.weights, inputs)["logits"]
    model = file.build(head, 13)
    assert len(int8.inner_convolutions(model)) > 2
    for call in (int8.runner(model.SerializeToString()), litert.runner(litert.convert(head))):
        np.testing.assert_allclose(call(inputs), wanted, rtol=1e-4, atol=1e-4)
