"""The names that columns go by in the files people have: which part of a row each of them plays, in which shape."""

from __future__ import annotations

# The shapes and the roles each of them needs.
SHAPES: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "completion": ("prompt", "completion"),
    "reasoned": ("prompt", "thinking", "answer"),
    "preference": ("prompt", "chosen", "rejected"),
    "ranked": ("prompt", "ranking"),
    "rated": ("prompt", "completion", "label"),
    "steps": ("prompt", "steps", "labels"),
    "verifiable": ("prompt", "answer"),
    "code": ("prompt", "tests"),
    "text": ("text",),
    "open": ("prompt",),  # prompts without a right answer: where they are asked for, and nothing else fits
}
# What a row of a shape may also say: its own name, language and way of comparing, what is read before the question, the
# options to choose from, instructions for all turns; how much better the chosen reply is.
_ASKED = ("context", "system")
OPTIONAL_OF: dict[str, tuple[str, ...]] = {
    "verifiable": ("id", "language", "answer_type", "letter", *_ASKED),
    "open": ("id", "language", "answer_type", *_ASKED),
    "code": ("id", "system"),  # its `language` is the programs'
    "preference": ("margin", *_ASKED),
    "ranked": ("ranks", *_ASKED),
    "completion": _ASKED,
    "reasoned": _ASKED,
    "messages": ("system",),
}
OPTIONAL = tuple(dict.fromkeys(("options", *(role for roles in OPTIONAL_OF.values() for role in roles))))
CONVERSATIONS = ("messages", "completion", "reasoned")

# The column names that play each role without being told so; case aside. Two of one line that disagree are an error.
NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "problem"),
    "answer": (
        "answer", "gold", "final_answer", "ground_truth", "golden", "gold_answer", "expected_answer", "correct_answer",
    ),
    "thinking": ("thinking", "reasoning"),
    "messages": ("messages", "conversations", "conversation"),
    "context": ("context", "body", "passage"),
    "system": ("system", "system_prompt"),
    "letter": ("choice_answer", "answer_letter"),  # of a question whose options stand in its text, beside the answer
}  # fmt: skip
_ROLES = dict.fromkeys([role for roles in SHAPES.values() for role in roles] + list(OPTIONAL))
NAMES |= {role: (role,) for role in _ROLES if role not in NAMES and role != "options"}

# Names that count where none of the names above is there: the first line of which one is.
AFTER: dict[str, tuple[tuple[str, ...], ...]] = {
    "prompt": (
        ("query", "instruction", "question_text", "problem_text", "problem_statement", "question_stem"),
        ("input", "text_question", "sent", "ctx", "goal", "original_text", "content"),
        ("question_content", "description"),  # LiveCodeBench, Codeforces
    ),
    "answer": (
        ("reward_model.ground_truth", "verification_info.ground_truth"),
        ("target", "numerical_answer", "ground_truth_answer", "ground_truth_final_answer", "reference_answer", "ans"),
        ("correct", "answerkey", "answer_key", "answer_value", "label.ground_truth"),
        ("answer.value", "answer.ground_truth", "answer.answer", "answer.final_answer"),
        ("solution", "gold_solution", "ground_truth_solution", "reference_solution"),
    ),
    "completion": (("response", "output", "reply", "generated_solution", "generation"),),
    "messages": (("dialogue", "dialog", "chat", "turns"),),
    "chosen": (("chosen_response", "response_chosen", "preferred", "better", "winner"),),
    "rejected": (("rejected_response", "response_rejected", "dispreferred", "worse", "loser"),),
    "ranking": (("ranked", "ranked_replies", "ranked_responses", "ranked_completions"),),
    "steps": (("completions",),),
    "tests": (
        ("test_cases", "test_list", "input_output", "public_test_cases", "official_tests", "unit_tests"),
        ("testcase", "testcases", "verification_info"),
        ("test",),
    ),
    "id": (("unique_id", "uuid"),),
    "context": (("table", "article", "story"), ("input",)),  # `input` beside an `instruction`
}

# Names that other data sets use for something that temper cannot be sure of: offered as a mapping.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "prompt": ("user", "source", "sentence"),
    "completion": ("assistant", "answer", "solution"),
    "answer": ("label", "expected", "expected_output", "reference", "result", "output"),
    "thinking": ("chain_of_thought", "complex_cot", "cot", "rationale", "think", "reasoning_content"),
    "text": ("content", "document", "body"),
    "label": ("rating", "score"),
    "ranking": ("responses", "completions", "answers", "replies", "outputs"),
}

# Columns that hold the options of a choice, one name or one name for each option; and the letter, number or text of the
# right one, the surest first.
OPTIONS: tuple[str, ...] = ("options", "choices", "endings", "candidates", "answer_option_list")
OPTION_SETS: tuple[tuple[str, ...], ...] = (
    ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"),
    ("option_a", "option_b", "option_c", "option_d", "option_e", "option_f"),
    ("opa", "opb", "opc", "opd", "ope"),
    ("option1", "option2", "option3", "option4", "option5", "option6"),
    ("option_1", "option_2", "option_3", "option_4", "option_5", "option_6"),
    ("choice_a", "choice_b", "choice_c", "choice_d", "choice_e"),
    ("choice1", "choice2", "choice3", "choice4", "choice5"),
    ("sol1", "sol2"),
    ("ending0", "ending1", "ending2", "ending3", "ending4"),
)
RIGHT_OPTION: tuple[str, ...] = (
    "answer_letter", "answer_idx", "answer_index", "answerkey", "answer_key", "correct_option", "correct_choice",
    "correct_idx", "correct", "answer_value", "answer", "gold", "gold_index", "label", "cop", "target",
    "correct_answer", "solution", "ground_truth", "golden", "reward_model.ground_truth",
)  # fmt: skip
# One right option and several wrong ones, each in a column of its own.
RIGHT_ONE = ("correct_answer", "best_answer")
WRONG_ONES = ("incorrect_answer_", "distractor", "incorrect_answers", "distractors", "incorrect_answer", "wrong_answer")


def folded(name: str) -> str:
    """A column's name as it is looked up.

    >>> folded("Correct Answer"), folded("answerKey")
    ('correct_answer', 'answerkey')
    """
    return "_".join(name.strip().casefold().replace("-", " ").split())
