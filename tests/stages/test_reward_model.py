"""The stage `reward_model`: its gradient is the formula's, it learns, resumes to the bit, scores as transformers do."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_zoo import make
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from temper.cli import main
from temper.errors import ArtifactError, ConfigError, DataError, Preempted
from temper.models.reward_card import RewardCard, is_reward_model, read_card
from temper.models.scalar import load_scalar
from temper.rollout.reward_model import RewardModel
from temper.stages import reward_model
from temper.stages.context import StageContext
from temper.stages.reward_model import Config
from temper.text.chat import ChatFormat
from temper.text.reply import parse_reply
from temper.text.steps import reply_steps
from temper.train.learner import Learner
from temper.types import Message, Prompt


class Log:
    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.said: list[str] = []

    def step(self, step: int, total: int, metrics: dict[str, float]) -> None:
        self.rows[step] = metrics

    def resume_at(self, step: int, kept: Path | None = None) -> None: ...

    def info(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str, key: str = "") -> None:
        self.said.append(text)


def reply(thinking: str, answer: str) -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def pairs(count: int, seed: int = 0) -> list[dict]:
    """The better answer holds a b; the thinking says nothing about it."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        thoughts = [f"so {draw.choice('xyz')}", f"then {draw.choice('xyz')}"]
        good, bad = (draw.choice("cde") + letter + draw.choice("cde") for letter in "ba")
        made.append({"prompt": f"q{i}", "chosen": reply(thoughts[0], good), "rejected": reply(thoughts[1], bad)})
    return made


def rated(count: int) -> list[dict]:
    return [{"prompt": f"q{i}", "completion": "ab" if i % 2 else "ac", "label": i % 2} for i in range(count)]


def labelled(count: int) -> list[dict]:
    return [
        {"prompt": f"q{i}", "steps": ["ab.", " ac." if i % 3 else " ab.", " ab."], "labels": [1, i % 3 == 0, 0.5]}
        for i in range(count)
    ]


ROWS: dict[str, Callable[[int], list[dict]]] = {"bradley_terry": pairs, "pointwise": rated, "process": labelled}


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train(
    folder: Path,
    model: Path,
    rows: list[dict],
    *,
    stop_after: int = 0,
    replay: list[dict] | None = None,
    **options: Any,
) -> tuple[Path, Log]:
    """(what the stage left, its log); started again in the same folder it goes on."""
    out, work, log = folder / "out", folder / "work", Log()
    for path in (out, work):
        path.mkdir(parents=True, exist_ok=True)
    inputs = {"m": model, "d": write(folder / "d.jsonl", rows)}
    if replay is not None:
        inputs["old"] = write(folder / "old.jsonl", replay)
        options["replay"] = ["old"]
    settings = {"learning_rate": 3e-3, "batch_size": 16, "save_steps": 2, "device": "cpu", **options}
    config = Config(model="m", data="d", **settings)
    ctx = StageContext(
        "helpful",
        0,
        out,
        work,
        inputs,
        {},
        log,
        lambda: 0 < stop_after <= max(log.rows, default=0),  # type: ignore[arg-type]
    )
    assert not reward_model.check(config, ctx)
    reward_model.run(config, ctx)
    return out, log


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("llama", tmp_path_factory.mktemp("models") / "m")


@pytest.fixture(scope="module")
def helpful(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Log]:
    return train(tmp_path_factory.mktemp("helpful"), source, pairs(240), num_train_epochs=3)


def units(kind: str, source: Path, tmp_path: Path, **options: Any) -> tuple[Config, list[reward_model.Unit]]:
    config = Config(model="m", data="d", kind=kind, held_out_share=0, **options)  # type: ignore[arg-type]
    inputs = {"m": source, "d": write(tmp_path / "d.jsonl", ROWS[kind](9))}
    ctx = StageContext("s", 0, tmp_path, tmp_path, inputs, {}, Log(), lambda: False)  # type: ignore[arg-type]
    return config, reward_model.open_units(config, ctx, ChatFormat.load(source))[0]


@pytest.mark.parametrize("kind", ROWS)
def test_a_steps_gradient_is_the_formulas_and_does_not_depend_on_its_split(kind, source, tmp_path):
    found = []
    scope = "step" if kind == "process" else "text"
    options: dict[str, Any] = {"center_rewards_coefficient": 0.1} if kind == "bradley_terry" else {}
    for budget in (1, 40, 10_000):
        config, rows = units(kind, source, tmp_path, micro_batch_tokens=budget, max_grad_norm=1e9, **options)
        learner = Learner(load_scalar(source, scope, 5), config, 1)
        metrics = reward_model.update(learner, config, rows)
        found.append([p.grad.clone() for p in learner.model.parameters()])
    plain = load_scalar(source, scope, 5)
    plain.set_attn_implementation("eager")
    expected = naive_loss(plain, kind, rows)
    expected.backward()
    assert metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    for gradients in found:
        for mine, parameter in zip(gradients, plain.parameters(), strict=True):
            wanted = parameter.grad
            assert torch.allclose(mine, wanted, atol=1e-5 * float(wanted.abs().max()) + 1e-8)


def naive_loss(model: Any, kind: str, rows: list[reward_model.Unit]) -> torch.Tensor:
    """One reply at a time through eager attention, the losses written out."""

    def scores(example: Any) -> torch.Tensor:
        hidden = model.model(input_ids=torch.tensor([example.token_ids])).last_hidden_state[0]
        return model.score(hidden[list(example.asked)])[:, 0]

    losses = []
    for unit in rows:
        said = torch.cat([scores(example) for example in unit.examples])
        if kind == "bradley_terry":
            losses.append(torch.log1p(torch.exp(said[1] - said[0] + unit.aims[0])) + 0.1 * (said[0] + said[1]) ** 2)
        else:
            for score, label in zip(said, unit.aims, strict=True):
                p = torch.sigmoid(score)
                losses.append(-label * p.log() - (1 - label) * (1 - p).log())
    return torch.stack(losses).mean()


def test_it_learns_which_answer_is_better_and_says_so_of_prompts_it_never_saw(helpful):
    out, log = helpful
    measured = [row for row in log.rows.values() if "held_out/accuracy" in row]
    assert len(measured) == 3
    assert measured[-1]["held_out/accuracy"] > 0.9
    assert measured[-1]["held_out/loss"] < measured[0]["held_out/loss"]
    card = read_card(out)
    assert (card.kind, card.reads) == ("bradley_terry", "answer")
    assert card.lowest < card.mean


def question(text: str = "q7") -> Prompt:
    return Prompt("1", "general", (Message("user", text),), gold="x")


def ask(model: RewardModel, *texts: str) -> list[Any]:
    return model.batch([(question(), parse_reply(text)) for text in texts])


def test_the_reward_is_transformers_own_score_made_comparable(helpful):
    out, _ = helpful
    card, reward = read_card(out), RewardModel.load(out, torch.device("cpu"))
    tokenizer = AutoTokenizer.from_pretrained(out)
    plain = AutoModelForSequenceClassification.from_pretrained(out)
    turns = [{"role": "user", "content": "q7"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    for answer in ("cbd", "cad"):
        end = ChatFormat.load(out).tokenizer.backend.id_to_token(ChatFormat.load(out).end_id)
        inputs = tokenizer(prompt + answer + end, add_special_tokens=False, return_tensors="pt")
        expected = (plain(**inputs).logits[0, 0].item() - card.mean) / card.std
        assert ask(reward, reply("any", answer))[0] == pytest.approx(expected, abs=1e-4)


def test_only_the_answer_is_read_equal_replies_are_equal_and_nothing_to_read_is_the_least(helpful):
    out, _ = helpful
    reward = RewardModel.load(out, torch.device("cpu"))
    good, other, bad, empty, broken, open_ = ask(
        reward, reply("x", "cbd"), reply("a much longer thought", "cbd"), reply("x", "cad"), "<think>x</think>",
        "<think>x<answer>cbd</answer>", "<think>x",
    )  # fmt: skip
    assert good == other > bad
    assert empty == broken == open_ == (reward.card.lowest - reward.card.mean) / reward.card.std
    assert reward(question(), parse_reply(reply("x", "cbd"))) == pytest.approx(good, abs=1e-5)


def test_a_reply_that_does_not_fit_fails_alone(helpful):
    out, _ = helpful
    reward = RewardModel.load(out, torch.device("cpu"))
    fine, failed = ask(reward, "cbd", "long " * 600)
    assert isinstance(fine, float)
    assert isinstance(failed, ValueError)
    with pytest.raises(ValueError, match="do not fit"):
        reward(question(), parse_reply("long " * 600))


def test_weights_are_the_same_to_the_bit_after_a_stop_and_a_resume(source, tmp_path):
    whole, log = train(tmp_path / "whole", source, pairs(60), num_train_epochs=2)
    with pytest.raises(Preempted):
        train(tmp_path / "halves", source, pairs(60), num_train_epochs=2, stop_after=3)
    resumed, rest = train(tmp_path / "halves", source, pairs(60), num_train_epochs=2)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert read_card(resumed) == read_card(whole)
    assert min(rest.rows) == 4
    assert max(rest.rows) == max(log.rows)


def test_a_pointwise_model_reads_everything_and_gives_probabilities(source, tmp_path):
    out, log = train(tmp_path, source, rated(160), kind="pointwise", num_train_epochs=2)
    assert read_card(out).reads == "whole"
    assert max(row["held_out/accuracy"] for row in log.rows.values() if "held_out/accuracy" in row) == 1.0
    good, bad = ask(RewardModel.load(out, torch.device("cpu")), "ab", "ac")
    assert 0 < bad < 0.5 < good < 1


def test_a_process_model_judges_each_step_by_what_stands_before_it(source, tmp_path):
    out, _ = train(tmp_path, source, labelled(160), kind="process", num_train_epochs=4)
    assert type(AutoModelForTokenClassification.from_pretrained(out)).__name__ == "LlamaForTokenClassification"
    reward = RewardModel.load(out, torch.device("cpu"))
    right, wrong = parse_reply("ab. ab. ab."), parse_reply("ab. ac. ab.")
    of_right, of_wrong = (reward.step_rewards(question(), r, reply_steps(r)) for r in (right, wrong))
    assert len(of_right) == len(of_wrong) == 3
    assert of_right[0] == pytest.approx(of_wrong[0], abs=1e-6)
    assert of_right[1] > 0.8 > 0.2 > of_wrong[1]
    cut = parse_reply("ab. ac.")
    assert reward.step_rewards(question(), cut, reply_steps(cut)) == pytest.approx(of_wrong[:2], abs=1e-6)
    assert reward.batch([(question(), wrong)]) == [pytest.approx(min(of_wrong), abs=1e-6)]


def test_a_model_of_whole_replies_has_no_step_rewards(helpful):
    reward = RewardModel.load(helpful[0], torch.device("cpu"))
    with pytest.raises(ArtifactError, match="judges whole replies"):
        reward.step_rewards(question(), parse_reply("a."), reply_steps(parse_reply("a.")))


def test_a_reward_model_is_trained_further_with_a_tenth_of_earlier_rows(helpful, tmp_path):
    out, _ = helpful
    again, log = train(tmp_path, out, pairs(90, seed=1), replay=pairs(50, seed=2), held_out_share=0)
    assert any("10 of 100 rows are replayed" in text for text in log.said)
    assert is_reward_model(again)
    assert log.rows[1]["accuracy"] > 0.9  # it starts from what it knew
    with pytest.raises(ConfigError, match="reads the answer, this stage a bradley_terry one that reads the whole"):
        train_unchecked(tmp_path / "other", out, pairs(20), reads="whole")


def train_unchecked(folder: Path, model: Path, rows: list[dict], **options: Any) -> None:
    folder.mkdir()
    inputs = {"m": model, "d": write(folder / "d.jsonl", rows)}
    ctx = StageContext("s", 0, folder, folder, inputs, {}, Log(), lambda: False)  # type: ignore[arg-type]
    config = Config(model="m", data="d", **options)
    assert reward_model.check(config, ctx)
    reward_model.run(config, ctx)


def test_rows_that_say_nothing_after_the_thinking_are_left_out_and_told(source, tmp_path):
    rows = [*pairs(30), {"prompt": "q", "chosen": "<think>a</think>", "rejected": reply("a", "b")}]
    _, log = train(tmp_path, source, rows)
    assert any("1 of 31 rows" in text for text in log.said)
    with pytest.raises(DataError, match="no row says anything"):
        train(tmp_path / "none", source, rows[-1:])


def test_with_adapters_the_head_is_trained_whole_and_the_model_left_is_one(source, tmp_path):
    pytest.importorskip("peft")
    out, _ = train(tmp_path, source, pairs(48), lora={"r": 4}, held_out_share=0)
    before, after = load_scalar(source, seed=0), load_scalar(out)
    assert not torch.equal(before.score.weight, after.score.weight)
    assert not torch.equal(before.model.layers[0].mlp.up_proj.weight, after.model.layers[0].mlp.up_proj.weight)
    assert torch.equal(before.model.embed_tokens.weight, after.model.embed_tokens.weight)
    assert (out / "adapter/adapter_model.safetensors").exists()


def test_where_the_prompt_opens_the_thinking_an_answer_alone_gets_an_empty_one(tmp_path):
    chat = ChatFormat.load(make("qwen2", tmp_path / "m", chat="r1_distill"))
    assert chat.thinking_opened
    conversation = (Message("user", "q"),)
    alone, thought = (chat.replies_ids([conversation], [[text]])[0] for text in ("ab", "<think></think>ab"))
    assert alone == thought
    assert chat.tokenizer.decode_on([i for ids in alone[1] for i in ids]).endswith("</think>ab")


def test_a_card_that_cannot_be_believed_is_refused(tmp_path):
    with pytest.raises(ArtifactError):
        read_card(tmp_path)
    RewardCard("pointwise", "whole", 0.1, 2.0, -1.0).write(tmp_path)
    assert read_card(tmp_path) == RewardCard("pointwise", "whole", 0.1, 2.0, -1.0)
    for key, value in (("kind", "best"), ("std", 0), ("mean", None), ("lowest", True)):
        values = json.loads((tmp_path / "reward_model.json").read_text()) | {key: value}
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other/reward_model.json").write_text(json.dumps(values))
        with pytest.raises(ArtifactError, match=key):
            read_card(tmp_path / "other")


def test_temper_score_asks_a_reward_model_by_its_directory(helpful, tmp_path, capsys):
    out, _ = helpful
    rows = [{"prompt": "q7", "reply": reply("x", answer), "gold": "5"} for answer in ("cbd", "cad")]
    file = write(tmp_path / "rows.jsonl", rows)
    assert main(["score", "--rewards", f"format,{out}", str(file)]) == 0
    good, bad = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert good[str(out)] > bad[str(out)]
    assert good["format"] == bad["format"] == 1
    assert main(["score", "--rewards", str(tmp_path), str(file)]) == 5
