"""Files as people have them load as they are: what is asked, and which answer is wanted. The rows are our own, the
columns those of public data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from temper.config import TaskConfig
from temper.data.conversations import load_conversations
from temper.data.files import read_rows
from temper.data.findings import Findings, Note
from temper.data.judged import load_judged
from temper.data.names import CONVERSATIONS
from temper.data.shapes import shape_of_rows
from temper.data.tasks import load_prompts
from temper.errors import DataError
from temper.types import Message, Prompt


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


ASK = "What is 4 + 5?"
THINK = "<think>Four and five.</think><answer>9</answer>"
# Rows of one file, what the last user turn of the first holds, and every gold answer.
VERIFIABLE: dict[str, tuple[list[dict[str, Any]], str, list[str]]] = {
    "math500": (
        [{"problem": ASK, "solution": r"We get $\boxed{9}$.", "answer": "9", "subject": "Algebra", "level": 2}],
        ASK,
        ["9"],
    ),
    "a worked solution alone": ([{"problem": ASK, "solution": r"We get $\boxed{9}$."}], ASK, ["9"]),
    "a solution that is null": ([{"id": 0, "question": ASK, "answer": 9.0, "solution": None}], ASK, ["9.0"]),
    "two equal columns": ([{"problem": ASK, "question": ASK, "answer": "9", "gold": "9"}], ASK, ["9"]),
    "answers of one value": ([{"question": ASK, "answer": "9", "final_answer": "#### 9.0"}], ASK, ["9"]),
    "gsm8k": ([{"question": ASK, "answer": "4+5=<<4+5=9>>9\n#### 9"}], ASK, ["9"]),
    "verl": (
        [
            {
                "data_source": "x",
                "prompt": [user(ASK)],
                "ability": "math",
                "extra_info": {"index": 3, "answer": "no"},
                "reward_model": {"style": "rule", "ground_truth": "9"},
            }
        ],
        ASK,
        ["9"],
    ),
    "skywork": ([{"prompt": [user(ASK)], "reward_model": {"ground_truth": '["9"]', "style": "rule"}}], ASK, ["9"]),
    "verl in a table of texts": ([{"prompt": ASK, "reward_model": '{"ground_truth": "9"}'}], ASK, ["9"]),
    "synthetic-1": ([{"prompt": ASK, "verification_info": '{"ground_truth": "9"}', "source": "s"}], ASK, ["9"]),
    "open-instruct": ([{"messages": [user(ASK)], "ground_truth": "9", "dataset": "math"}], ASK, ["9"]),
    "open-instruct, newer": ([{"messages": [user(ASK)], "ground_truth": ["9"], "dataset": ["math"]}], ASK, ["9"]),
    "an assistant with nothing to say": ([{"messages": [user(ASK), assistant("")], "answer": "9"}], ASK, ["9"]),
    "from and value": ([{"prompt": [{"from": "user", "value": ASK}], "final_answer": "9"}], ASK, ["9"]),
    "openr1-math": (
        [
            {
                "problem": ASK,
                "solution": "Count.",
                "answer": "9",
                "problem_type": "Algebra",
                "uuid": "u",
                "source": "o",
                "generations": ["a", "b"],
                "messages": [user(ASK), assistant("Nine.")],
            }
        ],
        ASK,
        ["9"],
    ),
    "numina": (
        [
            {
                "source": "s",
                "problem": ASK,
                "solution": r"$\boxed{9}$",
                "messages": [user(ASK), assistant(r"$\boxed{9}$")],
            }
        ],
        ASK,
        ["9"],
    ),
    "messages that ask more than the problem": (
        [{"problem": ASK, "answer": "9", "messages": [user(ASK + " Think first."), assistant("Nine.")]}],
        ASK,
        ["9"],
    ),
    "deepmath": (
        [{"question": ASK, "final_answer": "9", "difficulty": 4.5, "topic": "t", "r1_solution_1": "x"}],
        ASK,
        ["9"],
    ),
    "big-math": (
        [{"problem": ASK, "answer": "9", "source": "s", "domain": ["d"], "llama8b_solve_rate": 0.5}],
        ASK,
        ["9"],
    ),
    "openmathreasoning": (
        [{"expected_answer": "9", "problem_type": "has_answer_extracted", "problem": ASK, "problem_source": "aops"}],
        ASK,
        ["9"],
    ),
    "olympiadbench": (
        [
            {
                "id": 1,
                "context": None,
                "question": ASK,
                "solution": ["long"],
                "final_answer": ["9"],
                "answer_type": "Numerical",
                "is_multiple_answer": False,
                "unit": None,
                "language": "English",
                "error": None,
            }
        ],
        ASK,
        ["9"],
    ),
    "asdiv": (
        [{"body": "Two bags.", "question": ASK, "solution_type": "Sum", "answer": "9 (km)"}],
        "Two bags.\n" + ASK,
        ["9 (km)"],
    ),
    "svamp": ([{"Body": "Two bags", "Question": ASK, "Answer": 9.0, "ID": "chal-1"}], "Two bags\n" + ASK, ["9.0"]),
    "mawps": ([{"input": ASK, "target": 9.0, "type": "singleeq"}], ASK, ["9.0"]),
    "orz": (
        [[{"from": "human", "value": ASK}, {"from": "assistant", "ground_truth": {"value": "9"}}]] * 2,
        ASK,
        ["9", "9"],
    ),
    "an answer in an object": ([{"problem": ASK, "answer": {"ground_truth": "9", "style": "rule"}}], ASK, ["9"]),
    "a list as Python prints it": ([{"question": ASK, "answer": "['9']", "answer_type": "Numerical"}], ASK, ["9"]),
    "tal": (
        [
            {
                "problem": ASK,
                "answer_option_list": [[{"aoVal": "A", "content": "8 "}], [{"aoVal": "B", "content": "9 "}]],
                "answer_value": "B",
            }
        ],
        "B) 9",
        ["B"],
    ),
    "tabmwp": (
        [{"question": ASK, "table": "bag | balls", "choices": None, "answer": "9", "ans_type": "integer_number"}],
        "bag | balls\n" + ASK,
        ["9"],
    ),
    "cmath": ([{"grade": 1, "question": ASK, "golden": "9", "reasoning_step": 1}], ASK, ["9"]),
    "mmlu": ([{"question": ASK, "choices": ["7", "8", "9", "10"], "answer": 2}], "C) 9", ["C"]),
    "mmlu-pro": (
        [{"question": ASK, "options": ["8", "9"], "answer": "B", "answer_index": 1, "cot_content": ""}],
        "B) 9",
        ["B"],
    ),
    "aqua": ([{"question": ASK, "options": ["A)8", "B)9"], "rationale": "r", "correct": "B"}], "A) 8\nB) 9", ["B"]),
    "mathqa": ([{"Problem": ASK, "options": "a ) 8 , b ) 9", "correct": "b", "Rationale": "r"}], "A) 8\nB) 9", ["B"]),
    "sat": ([{"id": "0", "question": ASK, "options": "A) $8$ B) $9$", "Answer": "B"}], "A) $8$\nB) $9$", ["B"]),
    "arc": (
        [
            {"id": "i", "question": ASK, "choices": {"text": ["9", "8"], "label": ["A", "B"]}, "answerKey": "A"},
            {"id": "j", "question": "8?", "choices": {"text": ["9", "8"], "label": ["1", "2"]}, "answerKey": "2"},
        ],
        "A) 9",
        ["A", "B"],
    ),
    "medqa": (
        [{"question": ASK, "answer": "nine", "options": {"A": "eight", "B": "nine"}, "answer_idx": "B"}],
        "B) nine",
        ["B"],
    ),
    "c-eval": ([{"id": 0, "question": ASK, "A": "8", "B": "9", "C": "7", "D": "1", "answer": "B"}], "B) 9", ["B"]),
    "medmcqa": (
        [{"question": ASK, "opa": "9", "opb": "8", "opc": "7", "opd": "6", "cop": 0, "exp": None}],
        "A) 9",
        ["A"],
    ),
    "two options, counted from one": (
        [{"question": ASK, "option1": "8", "option2": "9", "answer": "2"}],
        "B) 9",
        ["B"],
    ),
    "agieval": (
        [{"passage": None, "question": ASK, "options": ["(A)8", "(B)9"], "label": "B", "answer": None}],
        "B) 9",
        ["B"],
    ),
    "the text of an option": ([{"question": ASK, "choices": ["eight", "nine"], "answer": "Nine"}], "B) nine", ["B"]),
    "options in one row only": (
        [{"question": ASK, "options": ["8", "9"], "answer": "B"}, {"question": "2+2?", "options": None, "answer": "4"}],
        "B) 9",
        ["B", "4"],
    ),
    "options that are in the question": (
        [{"question": "4+5?\nA. 8\nB. 9", "options": ["8", "9"], "answer": "B"}],
        "4+5?\nA. 8\nB. 9",
        ["B"],
    ),
    "a letter beside the answer": (
        [
            {"question": "4+5=()\nA.8  B.9", "answer": "9", "choice_answer": "B"},
            {"question": "2+2=()", "answer": "4", "choice_answer": ""},
        ],
        "A.8  B.9",
        ["B", "4"],
    ),
    "a letter that no option stands for": ([{"question": ASK, "answer": "9", "choice_answer": "B"}], ASK, ["9"]),
    "a column of the same name that means something else": (
        [
            {
                "question": ASK,
                "answer": "9",
                "language": "English",
                "answer_type": "Integer",
                "text": 3,
                "messages": "none",
                "id": None,
                "label": "hard",
                "steps": 2,
                "tests": None,
                "chosen": True,
                "system": "",
            }
        ],
        ASK,
        ["9"],
    ),
}


def write(folder: Path, rows: list) -> Path:
    path = folder / "t.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def load(folder: Path, rows: list, **config: Any) -> tuple[list[Prompt], list[Note]]:
    notes: list[Note] = []
    return load_prompts(write(folder, rows), "t", TaskConfig.model_validate(config), tell=notes.append), notes


@pytest.mark.parametrize("name", VERIFIABLE)
def test_a_verifiable_file_loads_as_it_is(tmp_path: Path, name: str) -> None:
    rows, asked, golds = VERIFIABLE[name]
    prompts, _ = load(tmp_path, rows)
    assert asked in prompts[0].text
    assert [prompt.gold for prompt in prompts] == golds
    found = Findings("t.jsonl")  # and told by its shape where no stage says what it wants
    assert shape_of_rows(list(read_rows(write(tmp_path, rows), found)), found).name == "verifiable"


def test_the_right_option_of_several_columns_is_not_always_the_first(tmp_path: Path) -> None:
    rows = [
        {
            "Question": f"{n}?",
            "Correct Answer": "yes",
            "Incorrect Answer 1": "no",
            "Incorrect Answer 2": "maybe",
            "Subdomain": "p",
        }
        for n in range(40)
    ]
    prompts, _ = load(tmp_path, rows)
    assert {prompt.gold for prompt in prompts} == {"A", "B", "C"}
    assert all(f"{prompt.gold}) yes" in prompt.text for prompt in prompts)
    assert [p.text for p in load(tmp_path, rows)[0]] == [p.text for p in prompts]


def test_how_a_choice_is_put_can_be_changed(tmp_path: Path) -> None:
    rows = [{"question": "4+5? {options}", "options": ["8", "9"], "answer": "B"}]
    prompts, _ = load(tmp_path, rows, choice_template="Choose.\n{options}\n{question}")
    assert prompts[0].text == "Choose.\nA) 8\nB) 9\n4+5? {options}"


def test_an_answer_that_is_no_option_is_told(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "options": ["8", "9"], "answer": "B"} for n in range(3)]
    with pytest.raises(DataError) as caught:
        load(tmp_path, [*rows, {"question": "x?", "options": ["8", "9"], "answer": "E"}])
    assert "row 4: the gold answer is none of the options" in caught.value.render()
    assert "`E`" in caught.value.render()


def test_numbers_of_options_count_from_where_the_file_does(tmp_path: Path) -> None:
    options = ["6", "7", "8", "9"]
    rows = [{"question": f"{n}?", "options": options, "answer": n} for n in (1, 4, 2)]
    assert [prompt.gold for prompt in load(tmp_path, rows)[0]] == ["A", "D", "B"]
    rows = [{"question": f"{n}?", "options": options, "answer": n} for n in (1, 0, 2)]
    assert [prompt.gold for prompt in load(tmp_path, rows)[0]] == ["B", "A", "C"]


def test_a_solution_that_ends_otherwise_is_told_and_the_answer_wins(tmp_path: Path) -> None:
    rows = [{"problem": f"{n}?", "answer": str(n), "solution": rf"so \boxed{{{n + (n == 2)}}}"} for n in range(4)]
    prompts, notes = load(tmp_path, rows)
    assert [prompt.gold for prompt in prompts] == ["0", "1", "2", "3"]
    (note,) = notes
    assert note.level == "note"
    assert "in 1 of 4 rows" in note.render()
    assert "t.jsonl:3" in note.render()
    assert "`2` and `3`" in note.render()


def test_several_answers_in_a_list_count_together_where_the_row_says_so(tmp_path: Path) -> None:
    rows = [{"question": "a", "final_answer": ["1", "2"], "is_multiple_answer": True}]
    assert load(tmp_path, rows, answer="text")[0][0].gold == "1, 2"
    with pytest.raises(DataError, match="lists several answers"):
        load(tmp_path, [{"question": "a", "final_answer": ["1", "2"], "is_multiple_answer": False}], answer="text")


def test_rows_that_cannot_be_verified_are_left_out_where_the_task_says_so_and_counted(tmp_path: Path) -> None:
    rows = [
        {"question": f"{n}?", "answer": gold}
        for n, gold in enumerate(["1", "a proof by induction on n", "", None, "5"])
    ]
    with pytest.raises(DataError) as caught:
        load(tmp_path, rows)
    assert "unverifiable: drop" in caught.value.render()
    prompts, notes = load(tmp_path, rows, unverifiable="drop")
    assert [prompt.gold for prompt in prompts] == ["1", "5"]
    assert {prompt.coverage for prompt in prompts} == {"2 of 5 rows"}
    assert any("left out" in note.render() and "t.jsonl:2" in note.render() for note in notes)
    with pytest.raises(DataError):  # nothing is left
        load(tmp_path, rows[1:4], unverifiable="drop")
    with pytest.raises(DataError, match="`question` is empty"):  # what is broken stays an error
        load(tmp_path, [*rows, {"question": "", "answer": "5"}], unverifiable="drop")


SAID = (Message("user", ASK), Message("assistant", THINK))
TALKS: dict[str, tuple[dict[str, Any], tuple[Message, ...]]] = {
    "messages": ({"messages": [user(ASK), assistant(THINK)], "source": "s"}, SAID),
    "sharegpt": (
        {"id": "1", "conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": THINK}]},
        SAID,
    ),
    "a system column": (
        {"system": "Think.", "conversations": [{"from": "user", "value": ASK}, {"from": "assistant", "value": THINK}]},
        (Message("system", "Think."), *SAID),
    ),
    "alpaca": ({"instruction": "Add.", "input": "4 + 5", "output": THINK}, (Message("user", "Add.\n4 + 5"), SAID[1])),
    "alpaca without input": ({"instruction": ASK, "input": "", "output": THINK}, SAID),
    "dolly": (
        {"instruction": ASK, "context": "Sums.", "response": THINK, "category": "qa"},
        (Message("user", "Sums.\n" + ASK), SAID[1]),
    ),
    "metamath": ({"query": ASK, "response": THINK, "type": "t", "original_question": "4+5"}, SAID),
    "openorca": (
        {"id": "i", "system_prompt": "Think.", "question": ASK, "response": THINK},
        (Message("system", "Think."), *SAID),
    ),
    "magpie": (
        {
            "instruction": ASK,
            "response": THINK,
            "conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": THINK}],
        },
        SAID,
    ),
    "ultrachat": ({"prompt": ASK, "prompt_id": "p", "messages": [user(ASK), assistant(THINK)]}, SAID),
    "lima": ({"conversations": [ASK, THINK], "source": "s"}, SAID),
    "parts of text": (
        {"messages": [user(ASK), {"role": "assistant", "content": [{"type": "text", "text": THINK}]}]},
        SAID,
    ),
    "openr1-math": (
        {"problem": ASK, "answer": "9", "solution": "s", "messages": [user(ASK), assistant(THINK)]},
        SAID,
    ),
    "prompt and completion as messages": ({"prompt": [user(ASK)], "completion": [assistant(THINK)]}, SAID),
}


@pytest.mark.parametrize("name", TALKS)
def test_a_file_of_conversations_loads_as_it_is(tmp_path: Path, name: str) -> None:
    row, said = TALKS[name]
    assert load_conversations(write(tmp_path, [row]), tell=lambda _: None) == [said]


PAIRS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": ASK, "chosen": "9", "rejected": "8"},
    "a question": {"system": "", "question": ASK, "chosen": "9", "rejected": "8"},
    "whole conversations": {
        "chosen": [user(ASK), assistant("9")],
        "rejected": [user(ASK), assistant("8")],
        "score_chosen": 2.0,
    },
    "ultrafeedback": {
        "prompt": ASK,
        "prompt_id": "p",
        "chosen": [user(ASK), assistant("9")],
        "rejected": [user(ASK), assistant("8")],
        "messages": [user(ASK), assistant("9")],
        "score_chosen": 8.0,
        "score_rejected": 3.0,
    },
    "a conversation and two replies": {
        "conversations": [{"from": "human", "value": ASK}],
        "chosen": {"from": "gpt", "value": "9"},
        "rejected": {"from": "gpt", "value": "8"},
    },
    "written turns": {
        "chosen": f"\n\nHuman: {ASK}\n\nAssistant: 9",
        "rejected": f"\n\nHuman: {ASK}\n\nAssistant: 8",
    },
    "messages as the prompt": {"prompt": [user(ASK)], "chosen": [assistant("9")], "rejected": [assistant("8")]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_file_of_preferences_loads_as_it_is(tmp_path: Path, name: str) -> None:
    (pair,) = load_judged(write(tmp_path, [PAIRS[name]]), "preference", tell=lambda _: None)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((Message("user", ASK),), "9", "8")
    found = Findings("t.jsonl")
    assert shape_of_rows(list(read_rows(write(tmp_path, [PAIRS[name]]), found)), found).name == "preference"


def test_conversations_that_do_not_begin_alike_are_no_pair(tmp_path: Path) -> None:
    row = {"chosen": [user("a"), assistant("9")], "rejected": [user("b"), assistant("8")]}
    with pytest.raises(DataError, match="do not answer one prompt"):
        load_judged(write(tmp_path, [row]), "preference", tell=lambda _: None)


def test_labelled_steps_may_be_called_completions(tmp_path: Path) -> None:
    row = {"prompt": ASK, "completions": ["a.", "b."], "labels": [True, False]}
    (steps,) = load_judged(write(tmp_path, [row]), "steps", tell=lambda _: None)
    assert steps.steps == ("a.", "b.")


def test_what_is_asked_below_a_column_can_be_mapped(tmp_path: Path) -> None:
    rows = [{"task": {"text": ASK, "meta": {"gold": ["9"]}}}]
    prompts, _ = load(tmp_path, rows, columns={"prompt": "task.text", "answer": "task.meta.gold"})
    assert (prompts[0].text, prompts[0].gold) == (ASK, "9")
    with pytest.raises(DataError, match=r"task\.meta\.gld") as caught:
        load(tmp_path, rows, columns={"prompt": "task.text", "answer": "task.meta.gld"})
    assert "did you mean `task.meta.gold`?" in caught.value.render()


def test_two_ambiguities_are_told_at_once(tmp_path: Path) -> None:
    row = {"problem": "1?", "prompt": "2?", "answer": "5", "gold": "6", "messages": [user("3?"), assistant("7")]}
    with pytest.raises(DataError) as caught:
        load(tmp_path, [row])
    text = caught.value.render()
    assert [word for word in ("`messages`, `prompt`, `problem`", "`answer` and `gold`") if word not in text] == [], text
    assert CONVERSATIONS  # stages that want conversations are told the same
    with pytest.raises(DataError, match="ambiguous"):
        load_conversations(write(tmp_path, [row]), tell=lambda _: None)
