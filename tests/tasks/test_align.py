"""Alignment: packing of questions and answers, their loss, and what stage 2 takes over."""

import re

import jax
import numpy as np
import pytest
import toy_windows as toy

import tsmjax
from tsmjax import checkpoint, sharding, state
from tsmjax.config import resolve
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.errors import InputError
from tsmjax.start import fresh_state

QUESTIONS = 30


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(QUESTIONS + 8):
        x = rng.normal(size=(1, rng.integers(4, toy.STEPS + 1))).astype(np.float32)
        up = x[0, -1] > x[0, 0]
        rows.append(
            {
                **{"item_id": str(number), "target": x, "label": "rest", "label_id": np.int32(0)},
                **{"subject": "", "start": np.datetime64(0, "ns"), "rate": toy.RATE},
                **{"split": "train" if number < QUESTIONS else "validation"},
                # In the data set, y comes first.
                **{"channel": ("y_acc", "x_acc")[number % 2], "channel_id": np.int32(number % 2)},
                **{"qa_type": "trend" if number % 3 else "question"},
                **{"Q": "Up?", "A": "It goes up." if up else "No."},
                "sensor": {**toy.FACTS, "stage": 1, "channels": ["y_acc", "x_acc"]},
            }
        )
    folder = tmp_path_factory.mktemp("toy") / "questions"
    write_dataset(rows, folder)
    return str(folder)


def config(path, pack_length=128, **sections):
    values = toy.config(path)
    values["model"] |= {"model_type": "causal_lm"}
    values["task"] = {"kind": "align"}
    values["data"] |= {"batch_size": 8, "pack_length": pack_length}
    values["evals"] |= {"metric": "toy/loss", "mode": "min"}
    for name, changes in sections.items():
        values[name] |= changes
    return values


def test_every_question_is_packed_once_and_reads_as_it_should(path):
    task = resolve(config(path)).build_task()
    packs = task._packs("train")
    assert sorted(row for pack in packs.packs for row in pack) == list(range(QUESTIONS))
    assert len(packs.packs) < QUESTIONS / 2
    batch = packs.read(np.arange(len(packs.packs)))
    texts = task.data.texts("A", range(QUESTIONS))
    for pack, rows in enumerate(packs.packs):
        for slot, row in enumerate(rows):
            here = batch["segments"][pack] == slot
            np.testing.assert_array_equal(batch["positions"][pack][here], np.arange(here.sum()))
            tokens = batch["tokens"][pack][here].tolist()
            readings = int(task.data.lengths[row])
            # The channel "y_acc" is the second of the model.
            marker = task.config.model.marker(1 - row % 2, False)
            assert tokens[:2] == [1, marker] and tokens[3 + readings] == marker + 1
            text = bytes(t - 3 for t in tokens[4 + readings : -1]).decode()
            assert text == f"\nUp?\n{texts[row]}" and tokens[-1] == 2
            states = batch["ts_index"][pack][here]
            np.testing.assert_array_equal(states[states >= 0], slot * 13 + np.arange(readings + 1))
            assert batch["series_mask"][pack, slot].sum() == readings + 1
    answers = batch["answers"][batch["answers"] >= 0]
    said = [byte + 3 for text in texts for byte in text.encode()]
    assert sorted(answers) == sorted([*said, *[2] * QUESTIONS])
    # The logits that predict a token are those of the place before it.
    following = np.take_along_axis(batch["tokens"], np.minimum(batch["places"] + 1, 127), axis=1)
    np.testing.assert_array_equal(following[batch["answers"] >= 0], answers)


@pytest.mark.parametrize("double", (False, True))
def test_chats_begin_once_or_twice_as_the_reference_does(path, monkeypatch, double):
    monkeypatch.setattr("tsmjax.tasks.align.text_tokenizer", lambda _: toy.Chatty())
    values = config(path, pack_length=512)
    values["model"]["llm"] = {**values["model"]["llm"], "vocab_size": 262}
    values["task"] |= {"chat_template": "llama3", "compat": {"double_bos": double}}
    packs = resolve(values).build_task()._packs("train")
    batch = packs.read(np.arange(len(packs.packs)))
    begins = (batch["tokens"] == 1).sum()
    assert begins == QUESTIONS * (1 + double)
    header = toy.Chatty().encode("<|start_header_id|>")
    first = batch["tokens"][0, : 2 + double].tolist()
    assert first == [1] * (1 + double) + header
    assert all(packs._size(row) <= 512 for row in range(QUESTIONS))


def test_packing_does_not_change_the_loss(path):
    totals = {}
    for length in (64, 192):
        task = resolve(config(path, length)).build_task()
        resolved = task.config
        plan = state.blueprint(task, resolved.optim)
        mesh = sharding.make_mesh(resolved.mesh, jax.devices()[:1])
        init, _, _ = state.create(task, plan, resolved.optim, mesh, 0)
        current, frozen = init(jax.random.key(0))
        model = plan.assemble(current["params"], {"model": {}}, frozen).model
        packs = task._packs("train")
        batch = packs.read(np.arange(len(packs.packs)))
        predict = jax.jit(task.predict)
        totals[length] = np.asarray(predict(model, batch)).sum(axis=0), len(packs.packs)
        tokens = float(task.weights(batch)["cross_entropy"])
        assert tokens == sum(len(text) + 1 for text in task.data.texts("A", range(QUESTIONS)))
    (short, many), (long, few) = totals.values()
    assert few < many / 2
    np.testing.assert_allclose(long, short, rtol=1e-4)


def test_stage_2_starts_from_what_stage_1_learnt(path, tmp_path):
    values = config(path, optim={"length": 25, "lr": 2e-2}, evals={"every": 5})
    outcome = tsmjax.train(values, tmp_path / "run")
    assert outcome["best"]["toy/loss"] < 4.5  # bytes at random: log 259 = 5.6
    learnt = checkpoint.load_weights(f"{tmp_path / 'run'}@final").params
    windows = toy.write(tmp_path / "windows")
    start = {"init_from": str(tmp_path / "run"), "init_skip": ("head/",)}
    second = resolve(toy.config(windows, checkpoint=start))
    task = second.build_task()
    plan = state.blueprint(task, second.optim)
    mesh = sharding.make_mesh(second.mesh, jax.devices()[:1])
    init, _, _ = state.create(task, plan, second.optim, mesh, 0)
    current, frozen = fresh_state(second, plan, init, task)
    found = current["params"]["model"]
    for number in ("0", "1"):
        np.testing.assert_array_equal(
            found["projection"]["layers"][number]["kernel"],
            learnt["projection"]["layers"][number]["kernel"],
        )
    np.testing.assert_array_equal(
        frozen["params"]["model"]["llm"]["embed"]["embedding"], learnt["llm"]["embed"]["embedding"]
    )
    assert found["head"]["kernel"].shape == (24, 4)


def test_kinds_of_questions_are_chosen(path):
    task = resolve(config(path, task={"qa_types": ("question",)})).build_task()
    rows = sorted(row for pack in task._packs("train").packs for row in pack)
    assert rows == list(range(0, QUESTIONS, 3))


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("data", {"pack_length": 12}, "no question of at most 12 tokens"),
        ("model", {"window": 6}, "set model.window=12"),
        ("model", {"channels": ("x_acc",)}, "a marker belongs to a channel by name"),
        ("model", {"model_type": "classification"}, "set model.model_type='causal_lm'"),
    ],
)
def test_data_that_do_not_fit_are_refused(path, section, change, words):
    with pytest.raises(InputError, match=re.escape(words)):
        resolve(config(path, **{section: change})).build_task()._packs("train")


def test_windows_of_stage_2_are_refused(tmp_path):
    with pytest.raises(InputError, match="prepare it with --stage 1"):
        resolve(config(toy.write(tmp_path / "w"))).build_task()._packs("train")
