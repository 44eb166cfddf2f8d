"""Classification of windows: prompts, weighted loss, what trains, the cache of states."""

import json
import re

import jax
import numpy as np
import pandas as pd
import pytest
import toy_windows as toy
from flax import nnx

import tsmjax
from tsmjax import checkpoint, optim, predict, sharding, state, step
from tsmjax.config import resolve
from tsmjax.data.prompts import text_columns
from tsmjax.errors import InputError
from tsmjax.nn.functional import flatten
from tsmjax.start import fresh_state
from tsmjax.tasks import Modules


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy") / "windows")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TSMJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Trainer:
    """A step and what it needs, without the loop."""

    def __init__(self, path, devices, **sections):
        self.config = resolve(toy.config(path, **sections))
        self.task = self.config.build_task()
        self.mesh = sharding.make_mesh(self.config.mesh, devices)
        self.plan = state.blueprint(self.task, self.config.optim)
        init, abstract, _ = state.create(self.task, self.plan, self.config.optim, self.mesh, 0)
        self.state, self.frozen = init(jax.random.key(0))
        schedule = optim.learning_rate(self.config.optim, 20)
        arguments = (self.task, self.plan, self.config.optim, schedule, self.mesh, abstract)
        self.step = step.jit_train_step(*arguments, donate=False)

    def run(self, at=0):
        batch = self.task.batches("train", 0, 1)[at]
        placed = sharding.put_batch(batch, self.mesh)
        return batch, *self.step(self.state, self.frozen, placed, jax.random.key(1))

    def chances(self, batch):
        predict = jax.jit(step.make_predict(self.task, self.plan, self.mesh))
        placed = sharding.put_batch(batch, self.mesh)
        return np.asarray(predict(self.state["params"], {"model": {}}, self.frozen, placed))


def test_a_prompt_holds_channels_by_name_then_texts(tmp_path):
    """The data set names its channels in another order than the model."""
    path = toy.write(
        tmp_path / "d", channels=["y_acc", "x_acc"], channel_texts=["second axis", "first axis"]
    )
    values = toy.config(path, task={"add_ts_special_token_text": True})
    windows = resolve(values).build_task().windows
    prompt = windows.prompt(3)
    model = resolve(values).model
    text = ""
    for token, index in zip(prompt.tokens.tolist(), prompt.ts_index.tolist(), strict=True):
        if index >= 0:
            assert token == 0
            text += "#"
        elif token >= 259:
            text += f"<{model.channels[(token - 259) // 2]}{'/' * ((token - 259) % 2)}>"
        else:
            text += chr(token - 3) if token > 2 else "^"
    states = "#" * 13
    line = windows.data.texts("smry", [3])[0]
    assert text == (
        f"^first axis: <x_acc>{states}<x_acc/>\nsecond axis: <y_acc>{states}<y_acc/>"
        f"\n\n{line}\nWhich?"
    )
    places = prompt.ts_index[prompt.ts_index >= 0]
    np.testing.assert_array_equal(places, np.arange(26))
    # State 0 belongs to the model's first channel, which is the second of the data.
    batch = windows.read(np.array([3, 4]))
    from tsmjax.models.chronos_t5 import tokenize

    expected = tokenize(model.encoder.tokenizer, windows.data.windows([3])[0, 1])
    np.testing.assert_array_equal(batch["series"][0, 0], expected.ids)
    assert batch["tokens"].shape == (2, 128)
    assert batch["lengths"][0] == len(prompt.tokens)


def test_texts_follow_each_other_in_a_fixed_order():
    assert text_columns("none") == []
    assert text_columns("Q+corr+smry+meta") == ["smry", "info_text", "corr_text", "Q"]
    for wrong in ("smry+q", "smry+smry", ""):
        with pytest.raises(InputError, match=r"task\.preprocess_type is"):
            text_columns(wrong)


def test_buckets_hold_prompts_of_like_length(tmp_path):
    def vary(rows):
        for number, row in enumerate(rows):
            row["smry"] = "x" * (number * 37 % 200)

    path = toy.write(tmp_path / "d", vary)
    data = {"bucket": 32, "batch_size": 4}
    task = resolve(toy.config(path, data=data)).build_task()
    batches = task.batches("train", 0, 1)
    parts = [task.batches("train", host, 2) for host in range(2)]
    read, seen, shapes = task.windows.read, [], set()
    task.windows.read = lambda rows, length=None: seen.append(rows) or read(rows, length)
    batches = task.batches("train", 0, 1)
    for at in range(11):  # one epoch
        batch = batches[at]
        shapes.add(batch["tokens"].shape)
        size, longest = batch["tokens"].shape[1], batch["lengths"].max()
        assert longest <= size < longest + 32
        halves = [part[at] for part in parts]
        np.testing.assert_array_equal(
            np.concatenate([half["tokens"] for half in halves]), batch["tokens"]
        )
    assert len(shapes) > 3
    mixed = resolve(toy.config(path, data={"batch_size": 4})).build_task().batches("train", 0, 1)
    padding = [
        1 - sum(b["lengths"].sum() for b in some) / sum(b["tokens"].size for b in some)
        for some in ([batches[i] for i in range(32)], [mixed[i] for i in range(32)])
    ]
    assert padding[0] < 0.2 < 0.3 < padding[1]
    drawn = np.concatenate(seen[-32:])
    counts = np.bincount(drawn, minlength=44)[:44]
    assert counts.min() >= 2 and counts.max() <= 4  # 128 draws from 44 rows


def test_training_loses_channels_whole(path):
    task = resolve(toy.config(path, task={"channel_dropout": 0.5})).build_task()
    model = task.build(nnx.Rngs(0)).model
    bias = model.projection.layers[-1].bias
    bias[...] = jax.random.normal(jax.random.key(1), bias.shape)  # no states are not no vectors
    batch, key = task.batches("train", 0, 1)[0], jax.random.key(3)
    plain, lost = (np.asarray(task._embed(model, batch, one)) for one in (None, key))
    nothing = np.asarray(model.projection(np.zeros(model.projection.layers[0].kernel.shape[0])))
    assert np.abs(nothing).max() > 0.1
    states, kept = batch["series"].shape[2], []
    for row, channel in np.ndindex(batch["series"].shape[:2]):
        of_channel = batch["ts_index"][row] // states == channel
        kept.append(np.allclose(lost[row, of_channel], plain[row, of_channel]))
        if not kept[-1]:
            np.testing.assert_allclose(lost[row, of_channel] - nothing, 0, atol=1e-5)
    assert 0 < np.mean(kept) < 1
    text = batch["ts_index"] < 0
    np.testing.assert_array_equal(lost[text], plain[text])
    # Only a training step loses any.
    told = [
        task.terms(Modules(model), batch, *how)["cross_entropy"]
        for how in ((key, True), (key, False), (None, True))
    ]
    assert told[0] != told[1] and told[1] == told[2]


@pytest.mark.parametrize("bucket", [0, 64])
def test_training_windows_change_in_every_epoch_on_any_number_of_hosts(path, bucket):
    data = {"augment": {"scale": 0.5, "jitter": 0.1}, "batch_size": 4, "bucket": bucket}
    values = toy.config(path, data=data, model={"statistics": True})
    values["task"]["fix_ts_encoder"] = False
    task = resolve(values).build_task()
    whole, plain = task.batches("train", 0, 1), task.windows.read
    halves = [task.batches("train", host, 2) for host in range(2)]
    seen = {}
    for at in range(33):  # three epochs
        batch = whole[at]
        for name in ("series", "statistics"):
            parts = np.concatenate([half[at][name] for half in halves])
            np.testing.assert_array_equal(parts, batch[name])
        for row, numbers in zip(_rows(whole, at), batch["statistics"], strict=True):
            seen.setdefault(row, []).append(numbers)
            assert np.abs(numbers - plain(np.array([row]))["statistics"][0]).max() > 1e-4
    assert len(seen) == 44
    for numbers in seen.values():
        assert all(np.abs(numbers[0] - other).max() > 1e-4 for other in numbers[1:])


def _rows(batches, at):
    """Row numbers of a batch, told by a reader that looks up nothing."""
    read, batches._read = batches._read, lambda rows, **_: rows
    rows = batches[at].tolist()
    batches._read = read
    return rows


def test_cached_states_do_not_go_with_changed_readings(path):
    with pytest.raises(InputError, match=r"set task\.cache_features=False"):
        resolve(toy.config(path, data={"augment": {"scale": 0.1}})).build_task()


def test_a_dropout_of_all_channels_is_refused(path):
    with pytest.raises(InputError, match=r"task\.channel_dropout is 1\.0, but must be in"):
        resolve(toy.config(path, task={"channel_dropout": 1.0}))


def test_the_loss_is_the_weighted_mean_on_any_number_of_devices(path):
    """As PyTorch computes it for the whole batch; the activity that nobody does weighs nothing."""
    one = Trainer(path, jax.devices()[:1])
    four = Trainer(path, jax.devices()[:4], optim={"accumulate": 4})
    weights = one.task.class_weights
    labels = one.task.windows.data.label_ids[one.task.windows.data.rows("train")]
    counts = np.bincount(labels, minlength=4)
    assert counts[1] == weights[1] == 0
    np.testing.assert_allclose(weights[[0, 2, 3]] * counts[[0, 2, 3]], 44 / 3, rtol=1e-6)
    batch, after, metrics = one.run()
    chances = one.chances({k: x for k, x in batch.items() if k != "label"})
    weight = weights[batch["label"]]
    losses = -np.log(chances[np.arange(16), batch["label"]])
    assert len({round(float(w), 3) for w in weight}) > 1
    np.testing.assert_allclose(
        metrics["cross_entropy"], (weight * losses).sum() / weight.sum(), rtol=1e-5
    )
    _, after_four, metrics_four = four.run()
    np.testing.assert_allclose(metrics_four["loss"], metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics_four["grad_norm"], metrics["grad_norm"], rtol=1e-4)
    expected, found = (flatten(x["params"]) for x in (after, after_four))
    for name, leaf in expected.items():
        np.testing.assert_allclose(found[name], leaf, atol=2e-4, err_msg=name)


def trained(path, **sections):
    config = resolve(toy.config(path, **sections))
    plan = state.blueprint(config.build_task(), config.optim)
    return plan, {name.split("/")[1] for name in flatten(plan.params)}


def test_named_switches_decide_what_trains(path):
    plan, names = trained(path, optim={"precision": "bfloat16"})
    assert names == {"projection", "new_tokens", "head"}
    frozen = jax.tree.leaves(plan.frozen)
    assert {str(leaf.dtype) for leaf in frozen} == {"bfloat16"}
    moments = optim.transformation(
        plan_optim := optim.OptimConfig(), optim.groups(plan_optim, plan.params)
    )
    sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(moments.init, plan.params))]
    assert sum(sizes) == 2 * state.count(plan.params) + 1
    assert trained(path, task={"fix_cls_head": True})[1] == {"projection", "new_tokens"}
    assert trained(path, task={"tune_mm_mlp_adapter": False})[1] == {"head"}
    assert "llm" in trained(path, task={"fix_llm": False})[1]
    assert "encoder" in trained(path, task={"fix_ts_encoder": False})[1]
    # A rule of the config wins over a switch, and adapters train in a frozen model.
    rules = {"freeze": ((r"llm/final_norm", False),), "lora": {"rank": 2}}
    plan, names = trained(path, optim=rules)
    inside = {name.rsplit("/", 1)[1] for name in flatten(plan.params) if "/llm/" in name}
    assert (names, inside) == (
        {"projection", "new_tokens", "head", "llm"},
        {"lora_a", "lora_b", "scale"},
    )


@pytest.mark.slow
def test_a_frozen_language_model_in_one_byte_a_weight(path, tmp_path):
    values = toy.config(path, optim={"int8": ((r"^model/llm/", True),), "length": 3})
    outcome = tsmjax.train(values, tmp_path / "run")
    assert np.isfinite(outcome["test"]["toy/log_loss"])
    frozen = flatten(checkpoint.load_frozen(tmp_path / "run")["params"]["model"]["llm"])
    kernels = {name: leaf for name, leaf in frozen.items() if name.endswith("/kernel")}
    assert len(kernels) == 7
    assert {leaf.dtype for leaf in kernels.values()} == {np.dtype(np.int8)}
    # Who reads the run finds kernels in float32 and no scales, and predicts as it did.
    found = flatten(checkpoint.load_weights(str(tmp_path / "run")).params["llm"])
    assert not [name for name in found if name.endswith("scale") and "norm" not in name]
    for name, leaf in kernels.items():
        expected = leaf * frozen[f"{name}_scale"][..., None, :]
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)
    again = toy.config(path, optim=values["optim"], checkpoint={"init_from": str(tmp_path / "run")})
    config = resolve(again)
    task, mesh = config.build_task(), sharding.make_mesh(config.mesh, jax.devices()[:1])
    plan = state.blueprint(task, config.optim)
    init, _, _ = state.create(task, plan, config.optim, mesh, 0)
    _, restored = fresh_state(config, plan, init, task)
    kept = flatten(restored["params"]["model"]["llm"])
    for name, leaf in kernels.items():
        np.testing.assert_array_equal(kept[name], leaf)
    with pytest.raises(InputError, match="which trains: freeze it"):
        trained(path, task={"fix_llm": False}, optim={"int8": ((r"^model/llm/", True),)})


def test_states_of_a_frozen_encoder_are_computed_once(path, cache):
    trainer = Trainer(path, jax.devices()[:1])
    windows = trainer.task.windows
    rows = np.arange(5)
    series = windows.read(rows)
    trainer.task.before(trainer.frozen)
    (file,) = (cache / "features").glob("*.bf16")
    found = windows.read(rows)
    assert "series" not in found
    assert found["features"].shape == (5, 2, 13, 20)
    model = trainer.plan.assemble(trainer.state["params"], {"model": {}}, trainer.frozen).model
    expected = jax.jit(model.encode)(series["series"], series["series_mask"])
    np.testing.assert_allclose(found["features"].astype(np.float32), expected, rtol=1e-2, atol=1e-2)
    written = file.stat().st_mtime_ns
    again = resolve(toy.config(path)).build_task()
    again.before(trainer.frozen)
    assert file.stat().st_mtime_ns == written and len(list(file.parent.glob("*.bf16"))) == 1
    other = jax.tree.map(lambda x: x * 1.5, trainer.frozen)
    again.before(other)
    assert len(list(file.parent.glob("*.bf16"))) == 2
    trains = resolve(toy.config(path, task={"fix_ts_encoder": False}))
    plan = state.blueprint(trains.build_task(), trains.optim)
    task = trains.build_task()
    task.before(plan.frozen)
    assert task.windows.features is None


def test_the_loss_of_an_answer_is_how_unlikely_it_is(path):
    trainer = Trainer(
        *(path, jax.devices()[:1]),
        **{"model": {**toy.config(path)["model"], "model_type": "causal_lm"}},
        task={"use_weighted_loss": False},
    )
    batch = trainer.task.batches("train", 0, 1)[0]
    terms = jax.jit(lambda model, batch: trainer.task.terms(Modules(model), batch, None, False))(
        trainer.plan.assemble(trainer.state["params"], {"model": {}}, trainer.frozen).model, batch
    )
    chances = trainer.chances(batch)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, rtol=1e-5)
    from tsmjax.models import llama

    model = trainer.plan.assemble(trainer.state["params"], {"model": {}}, trainer.frozen).model
    answers = trainer.task._answers
    assert bytes(x - 3 for x in answers[2][:-1]) == b"walk" and answers[2][-1] == 2
    assert trainer.task.windows.prompt(0).tokens[-1] == ord("\n") + 3

    @jax.jit
    def likely(batch):
        x = trainer.task._embed(model, batch)
        padded = np.asarray([[*a, *[0] * (6 - len(a))] for a in answers])
        used = np.asarray([len(a) for a in answers])
        return llama.score(model.llm, x, batch["asked"], padded, used, embed=model.embed_text)

    scores = np.asarray(likely(batch))
    own = scores[np.arange(16), batch["label"]]
    np.testing.assert_allclose(terms["cross_entropy"], -own.sum(), rtol=1e-4)
    tokens = trainer.task.weights(batch)["cross_entropy"]
    assert float(tokens) == sum(len(answers[label]) for label in batch["label"])


def test_a_chat_lists_the_activities_and_answers_with_a_number(path, monkeypatch):
    model = toy.config(path)["model"]
    model |= {"model_type": "causal_lm", "llm": {**model["llm"], "vocab_size": 262}}
    values = toy.config(path, model=model, task={"chat_template": "llama3"})
    with pytest.raises(InputError, match=r"does not know <\|eot_id\|>"):
        _ = resolve(values).build_task()
    monkeypatch.setattr("tsmjax.tasks.classify.text_tokenizer", lambda _: toy.Chatty())
    task = resolve(values).build_task()
    batch = task.windows.read(np.array([5]))
    shown = {1: "^", 259: "[0]", 260: "[1]", 261: "[2]", **dict.fromkeys(range(262, 266), "|")}
    told = "".join(
        "#" if index >= 0 else shown.get(token) or chr(token - 3)
        for token, index in zip(batch["tokens"][0], batch["ts_index"][0], strict=True)
        if token or index >= 0
    )
    states = f"|{'#' * 13}|"
    texts = f"{task.windows.data.texts('smry', [5])[0]}\nWhich?"
    label = batch["label"][0]
    assert told == (
        "^[0]system[1]\n\nYou recognise activities from sensor data. Answer with one of: 1. rest, "
        f"2. swim, 3. walk, 4. fly.[2][0]user[1]\n\n{states}\n{states}\n\n{texts}"
        f"[2][0]assistant[1]\n\n{label + 1}. {toy.LABELS[label]}[2]"
    )
    answer = batch["tokens"][0, batch["asked"][0] : batch["lengths"][0]]
    assert answer.tolist() == task._answers[label]


def test_a_run_scores_and_its_classifier_repeats_the_predictions(path, tmp_path, capsys):
    values = toy.config(
        path,
        task={"preprocess_type": "none", "fix_llm": False},
        optim={"length": 60, "lr": 5e-3},
        evals={"every": 30},
    )
    outcome = tsmjax.train(values, tmp_path / "run")
    scores = outcome["test"]
    assert set(scores) >= {"toy/f1_macro", "toy/accuracy", "toy/f1_class_1", "toy/log_loss"}
    logged = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, logged) if "loss" in row]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])
    meta = json.loads((tmp_path / "run/config.json").read_text())
    assert meta["model"]["labels"] == list(toy.LABELS)
    assert (tmp_path / "run/plots/confusion_toy_test.png").exists()
    classifier = tsmjax.Classifier.from_pretrained(tmp_path / "run")
    from tsmjax.data.sensor import SensorData

    data = SensorData(path)
    rows = data.rows("test")
    chances = classifier.predict_proba(data.windows(rows))
    accuracy = (chances.argmax(axis=1) == data.label_ids[rows]).mean()
    np.testing.assert_allclose(accuracy, scores["toy/accuracy"])
    log_loss = -np.log(chances[np.arange(len(rows)), data.label_ids[rows]]).mean()
    np.testing.assert_allclose(log_loss, scores["toy/log_loss"], atol=0.02)
    assert classifier.predict(data.windows(rows[:1])) == [toy.LABELS[chances[0].argmax()]]
    for wrong in (data.windows(rows)[:, :1], np.full((1, 2, 12), np.nan)):
        with pytest.raises(InputError, match=r"shape|finite"):
            classifier.predict_proba(wrong)
    # A stream of readings gives the same windows, and files the same as tables.
    stream = toy.stream(data.windows(rows), data.label_ids[rows])
    found = classifier.predict_df(stream, overlap=0.0)
    np.testing.assert_allclose(found[list(toy.LABELS)], chances, atol=1e-5)
    np.testing.assert_array_equal(found["label"], [toy.LABELS[i] for i in data.label_ids[rows]])
    assert found["start"].tolist()[:2] == [0.0, 3.0] and found["end"].tolist()[0] == 3.0
    stream.assign(time=pd.to_datetime(stream["time"], unit="s")).to_csv(tmp_path / "in.csv")
    files = ["--checkpoint", str(tmp_path / "run"), "--input", str(tmp_path / "in.csv")]
    files += ["--output", str(tmp_path / "out.csv"), "--plot", str(tmp_path / "timeline.png")]
    assert predict.main([*files, "--overlap", "0"]) == 0
    told = capsys.readouterr().out
    assert f"{len(rows)} windows" in told and f"{100 * scores['toy/accuracy']:.1f} % of" in told
    written = pd.read_csv(tmp_path / "out.csv")
    assert written["activity"].tolist() == found["activity"].tolist()
    assert written["start"].tolist()[1] == "1970-01-01 00:00:03"
    assert (tmp_path / "timeline.png").read_bytes()[:4] == b"\x89PNG"
    assert predict.main([*files, "--horizon", "3"]) == 2
    assert "names activities and forecasts nothing" in capsys.readouterr().err
    # Its head may not be taken for one of other labels.
    start = {"init_from": str(tmp_path / "run")}
    model = {**toy.config(path)["model"], "labels": toy.LABELS[::-1]}
    with pytest.raises(InputError, match="numbers the activities rest, swim, walk, fly"):
        resolve(toy.config(path, model=model, checkpoint=start)).build_task()


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("model", {"labels": ("a", "b", "c", "d")}, "ids would mean other activities"),
        ("model", {"channels": ("x_acc", "z_acc")}, "a marker belongs to a channel by name"),
        ("model", {"window": 14}, "set model.window=12"),
        ("task", {"model_max_length": 20}, "would cut a channel in two"),
        ("task", {"tokenizer": "nowhere"}, "task.tokenizer is 'nowhere'"),
        ("data", {"path": ""}, "data.path is empty"),
    ],
)
def test_data_that_do_not_fit_are_refused(path, section, change, words, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    values = toy.config(path)
    values[section] |= change
    with pytest.raises(InputError, match=re.escape(words)):
        _ = resolve(values).build_task().windows


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (
            "target",
            np.zeros((2, 0), np.float32),
            "Row 67 of .* has 0 readings, but a window has 12",
        ),
        ("target", np.zeros((2, 11), np.float32), "Row 67 of .* has 11 readings"),
        (
            "label_id",
            np.int32(4),
            "Row 67 of .* has the label 4, but the labels are numbered 0 to 3",
        ),
        ("label_id", np.int32(-1), "has the label -1"),
    ],
)
def test_rows_that_are_no_labelled_windows_are_refused(tmp_path, column, value, words):
    path = toy.write(tmp_path / "d", lambda rows: rows[-1].update({column: value}))
    with pytest.raises(InputError, match=words):
        _ = resolve(toy.config(path)).build_task().windows


def test_markers_start_at_the_mean_of_a_loaded_table(path, tmp_path):
    from tsmjax import weights
    from tsmjax.models import llama
    from tsmjax.nn.functional import abstract

    plain = resolve(toy.config(path)).to_dict()["model"]["llm"]
    _, shapes, _ = abstract(
        lambda rngs: llama.Model(resolve(toy.config(path)).model.llm, rngs=rngs)
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    weights.write(tmp_path / "llm", "llama", plain, params)
    config = resolve(toy.config(path, task={"llm": str(tmp_path / "llm")}))
    task, mesh = config.build_task(), sharding.make_mesh(config.mesh, jax.devices()[:1])
    plan = state.blueprint(task, config.optim)
    init, _, _ = state.create(task, plan, config.optim, mesh, 0)
    fresh, frozen = fresh_state(config, plan, init, task)
    table = frozen["params"]["model"]["llm"]["embed"]["embedding"]
    np.testing.assert_array_equal(table, params["embed"]["embedding"])
    found = fresh["params"]["model"]["new_tokens"]["embedding"]
    np.testing.assert_allclose(found, np.tile(np.mean(table, axis=0), (4, 1)), atol=1e-6)


def test_defects_of_the_reference_on_demand(path, tmp_path):
    def task(path, **compat):
        return resolve(toy.config(path, task={"compat": compat})).build_task()

    shares = np.array([22, 0, 17, 5]) / 44
    counts = np.bincount(task(path).windows.data.label_ids[:44], minlength=4)
    shares = counts / 44
    expected = 1 / (shares + 1e-6)
    np.testing.assert_allclose(
        task(path, smoothed_weights=True).class_weights, expected / expected.sum(), rtol=1e-5
    )
    other = toy.write(tmp_path / "d", channels=["y_acc", "x_acc"])
    rows = np.array([3])
    by_name, by_place = (
        task(other, markers_by_place=place).windows.series(rows)["series"][0]
        for place in (False, True)
    )
    np.testing.assert_array_equal(by_name, by_place[::-1])
    (chosen,) = task(path, select_on_test=True).evaluators("validation")
    (usual,) = task(path).evaluators("validation")
    assert (chosen.batches(0, 1)[0]["series"] != usual.batches(0, 1)[0]["series"]).any()
    with pytest.raises(
        InputError, match=r"rows_per_mean is 3, which does not divide the 16 windows"
    ):
        task(path, rows_per_mean=3)


def test_other_families_and_stages_are_refused(path, tmp_path):
    values = toy.config(path)
    with pytest.raises(InputError, match="the task 'classify' trains 'sensorllm'"):
        resolve({**values, "model": {"family": "llama"}}).build_task()
    other = toy.write(tmp_path / "d", stage=1)
    with pytest.raises(InputError, match="prepare it with --stage 2"):
        _ = resolve(toy.config(other)).build_task().windows
