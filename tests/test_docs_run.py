"""What README and docs show is run. The commands of a page are run in their order, by the command line's own entry,
in a folder that has the files and runs the page speaks of; what would train for minutes in its dry form: `run` as
`plan`, `sweep` as the plans of its first and last point. `NOT_RUN` says what cannot be run here, and why."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from doc_pages import PAGES, commands_shown, snippets

import temper
from temper.cli import Parser, load_command, main
from temper.code import Limits, Ran, Runner, Stdin, grade
from temper.code import Tests as Checks
from temper.commands.sweep import arguments, chosen_stage
from temper.errors import ConfigError, Exit, TemperError
from temper.pipeline.points import points_of
from temper.pipeline.sweep import check_points
from temper.recipe.reader import load_recipe
from temper.recipe.sources import RECIPES

NOT_RUN = {  # what a command begins with: why it is not run here
    "make": "installs and builds; CI runs `test`, `site` and `release`",
    "pip": "asks a package index",
    ".": "a word of the shell",
    "sbatch": "hands a job to a scheduler",
    "torchrun": "starts ranks on several machines; tests/distributed starts them on one",
    "vllm": "needs a GPU; tests/rollout/test_server.py has a stand-in with its routes",
    "lm_eval": "another project's program; tests/serve/test_endpoint.py asks what it asks",
    "python -": "reads a model of a package index",
    "python bench/": "measures for minutes; tests/bench runs them small",
    "temper plan my.yaml --ranks 8 --probe": "trains for seconds, in processes; tests/planning/test_probe.py does",
}
WITH_OUTPUT = {"data.md"}  # its commands are run, and what they print compared, by tests/commands/test_check.py
ABSENT = {"real_models.md": ["--for", "cpu:16GB"]}  # its models are not here: planned for a machine that is not either
SMALL = {
    "tiny_world": {
        "arithmetic_train": 16, "arithmetic_test": 4, "general_train": 8, "general_test": 4, "cold_start": 32,
        "general_conversations": 8,
    },
    "sft": {"num_train_epochs": 1, "batch_size": 16, "warmup_steps": 0},
    "grpo": {
        "max_steps": 2, "num_generations": 4, "prompts_per_step": 2, "max_completion_length": 8, "warmup_steps": 0,
        "kl_penalty": 0,
    },
    "sample": {"max_prompts": 8, "num_generations": 2, "max_completion_length": 8, "min_rewards": "{}"},
    "evaluate": {"num_samples": 1, "max_completion_length": 8},
}  # fmt: skip
PAGES_RUN = [page for page in PAGES if page.name not in WITH_OUTPUT and commands_shown(page)]


def as_typed(words: list[str]) -> str:
    return shlex.join([words[0].rpartition("/")[2], *words[1:]]).replace("'", "")


def excuse(words: list[str]) -> str | None:
    """The key of `NOT_RUN` that a command begins with."""
    typed = as_typed(words) + " "
    return next((key for key in NOT_RUN if typed.startswith(key if key.endswith("/") else f"{key} ")), None)


def small(recipe: Path, **more: object) -> list[str]:
    """Settings with which the stages of a recipe take moments."""
    stages = yaml.safe_load(recipe.read_text(encoding="utf-8"))["stages"]
    settings = ["--set", "threads=1"]
    for name, config in stages.items():
        for key, value in {**SMALL.get(config["stage"], {}), **more}.items():
            if key in SMALL.get(config["stage"], {}):
                settings += ["--set", f"{name}.{key}={value}"]
    return settings


def rows(path: str, *rows: dict) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files that pages speak of, a model, and a finished run of `own_data.yaml`."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sums = [(n, n % 7 + 2) for n in range(11, 51)]
        rows("my_prompts.jsonl", *({"prompt": f"{a}+{b}", "answer": str(a + b)} for a, b in sums))
        rows("my_held_out.jsonl", *({"prompt": f"{a}-{b}", "answer": str(a - b)} for a, b in sums[:4]))
        taught = "<think>{0}+{1} makes {2}.</think><answer>{2}</answer>"
        rows("my_cold_start.jsonl",
             *({"prompt": f"{a}+{b}", "completion": taught.format(a, b, a + b)} for a, b in sums))  # fmt: skip
        rows("train.jsonl", *({"question": f"{a}+{b}", "answer": str(a + b)} for a, b in sums))
        rows("test.jsonl", *({"frage": f"{a}*{b}", "antwort": str(a * b)} for a, b in sums[:2]))
        rows("poems.jsonl", {"prompt": "Write a poem."}, {"prompt": "Write another."})
        for name in ("my.py", "my_rewards.py"):
            Path(name).write_text("def brevity(prompt, reply):\n    return 1 / (1 + len(reply.text))\n")
        model = Path(temper.__file__).parent / "assets/tiny-base"
        for name in ("my-model", "smollm2", "models/mine", "path/to/model"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).symlink_to(model, target_is_directory=True)
        shutil.copy(RECIPES / "own_data.yaml", "own_data.yaml")
        assert main(["run", "own_data.yaml", "--out", "runs/tiny-…", *small(Path("own_data.yaml"))]) == 0
        Path("runs/own_data-…").symlink_to("tiny-…", target_is_directory=True)
        yield folder


@pytest.fixture
def here(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test stands in a copy of the folder; servers end at once, and a question is typed."""
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("temper.serve.server.serve_app", lambda app, bound: None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"38+33+19-49")))
    return folder


def parsed(words: list[str]):
    parser = Parser(prog="temper", allow_abbrev=False)
    load_command(words[0]).add_arguments(parser)
    return parser.parse_args(words[1:])


def ran(page: str, words: list[str]) -> str:
    """What is wrong with what a command did; nothing where all is well."""
    verb, *rest = words = [re.sub(r"\bN\b", "0", word) for word in words]
    try:
        if verb == "sweep":
            plan_points(words)
            return ""
        if page == "exercise.md" and verb == "run":  # what follows reads this run
            words += small(Path("my.yaml"), max_steps=12)
        elif verb == "run":
            words = ["plan", *rest, *ABSENT.get(page, [])]
        elif verb in ("serve", "ui"):
            words += ["--port", "0"]
        code = main(words)
    except (TemperError, SystemExit) as problem:
        return str(problem)
    well = code != Exit.BUG if verb == "doctor" else code == 0  # this machine may lack something
    return "" if well else f"exit code {code}"


def plan_points(words: list[str]) -> None:
    args = parsed(words)
    axes, seeds, _ = arguments(args)
    points = points_of(axes, seeds)
    plans = check_points(args.recipe, args.settings, [points[0], points[-1]], Path("sweep"))
    assert chosen_stage(args.stage, plans[0], axes)


@pytest.mark.parametrize("page", PAGES_RUN, ids=lambda page: page.name)
def test_the_commands_of_a_page_do_what_they_are_shown_for(page: Path, here: Path, capsys) -> None:
    (here / "my.yaml").unlink(missing_ok=True)
    shown = [words for _, words in commands_shown(page) if not excuse(words)]
    if not any(words[1] == "init" for words in shown):
        shutil.copy("own_data.yaml", "my.yaml")
    failed = {}
    for words in shown:
        if wrong := ran(page.name, words[1:]):
            failed[as_typed(words)] = wrong + capsys.readouterr().err
    assert failed == {}


def test_what_is_not_run_is_shown_and_said_why() -> None:
    shown = [words for _, words in commands_shown()]
    assert {key for words in shown if (key := excuse(words))} == set(NOT_RUN)
    assert all(words[0].endswith("temper") for words in shown if not excuse(words))


# -- commands in sentences --------------------------------------------------------------------------------------------


def spoken_of() -> list[tuple[str, str]]:
    """Every `temper …` in the text itself: (page, the command)."""
    return [
        (page.name, re.sub(r"\s+", " ", text))
        for page in PAGES
        for text in re.findall(r"(?<!`)`(temper [a-z][^`]*)`", page.read_text(encoding="utf-8"))
    ]


def test_options_that_sentences_speak_of_are_options() -> None:
    wrong = []
    for page, text in spoken_of():
        verb = text.split()[1]
        parser = Parser(prog="temper", allow_abbrev=False)
        load_command(verb).add_arguments(parser)
        known = {option for action in parser._actions for option in action.option_strings}
        wrong += [f"{page}: {text}" for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text) if option not in known]
    assert wrong == []


def complete() -> list[list[str]]:
    """Commands in sentences that are whole: nothing in them stands for something else."""
    texts = {text for _, text in spoken_of() if not re.search(r"\b[A-Z_]+\b|…|[\[\]<>]|^\S+ \S+$", text)}
    found = []
    for text in sorted(texts):
        words = shlex.split(text)[1:]
        try:
            parsed(words)
        except ConfigError:  # a part of one
            continue
        found.append(words)
    return found


def test_commands_in_sentences_do_what_they_say(here: Path, capsys: pytest.CaptureFixture) -> None:
    rows("test.jsonl", {"question": "2+2", "answer": "4"})
    assert len(complete()) > 10
    failed = {" ".join(words): wrong + capsys.readouterr().err for words in complete() if (wrong := ran("", words))}
    assert failed == {}


# -- snippets ---------------------------------------------------------------------------------------------------------

FILES = {"train": "my_prompts.jsonl", "test": "my_held_out.jsonl"}
TRAINED = {"stage": "grpo", "model": "@base", "tasks": ["maths"], "reward_funcs": ["format"], "max_steps": 2}
AROUND = {  # what the recipe has beside what is shown
    "tasks": {"maths": FILES, "arithmetic": FILES},
    "stages": {
        "world": {"stage": "tiny_world"},
        "base": {"stage": "import_model", "model": "my-model"},
        "cold_start": {"stage": "import_model", "model": "my-model"},
    },
}


def completed(stages: dict[str, dict]) -> dict[str, dict]:
    """With what `grpo` cannot do without, in blocks that repeat, too."""
    found = {}
    for name, stage in stages.items():
        inner = {"stages": completed(stage["stages"])} if "stages" in stage else {}
        found[name] = {**(TRAINED if stage.get("stage") == "grpo" else {}), **stage, **inner}
    return found


@pytest.mark.parametrize(("page", "text"), snippets("yaml"), ids=lambda part: part.splitlines()[0])
def test_recipes_shown_are_recipes(page: str, text: str, here: Path) -> None:
    """Whole ones, tasks or stages alone, or keys of a stage that trains by rewards."""
    shown = yaml.safe_load(text)
    if not {"tasks", "stages"} & set(shown):
        shown = {"stages": {"rl": {"stage": "grpo", **shown}}}
    recipe = {part: {**AROUND[part], **shown.get(part, {})} for part in AROUND}
    recipe["stages"] = completed(recipe["stages"])
    Path("shown.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    _, faults = load_recipe("shown.yaml", [])
    assert [fault for fault in faults if fault.code in (None, Exit.CONFIG)] == []


def python(page: str, word: str) -> str:
    """The one Python snippet of a page with a word in it. Those of python.md, learn.md and serve.md are run by
    tests/api/test_docs_python.py, tests/algorithms/test_learn.py and tests/serve/test_endpoint.py."""
    (found,) = (text for name, text in snippets("python") if name == page and word in text)
    return found


def test_every_python_snippet_is_run_somewhere() -> None:
    alone = {"python.md", "learn.md", "serve.md"}
    here = [("code.md", "class Mine"), ("code.md", "from temper.code"), ("data.md", "nums"), ("data.md", "brevity")]
    rest = [text for name, text in snippets("python") if name not in alone]
    assert sorted(rest) == sorted(python(page, word) for page, word in here)


def test_the_grader_shown_says_what_it_is_shown_to_say() -> None:
    *before, last = ast.parse(text := python("code.md", "from temper.code")).body
    names: dict = {}
    exec(compile(ast.Module(before, []), "code.md", "exec"), names)
    said = re.findall(r"# ('\w+')$", text.rstrip())
    assert [repr(eval(compile(ast.Expression(last.value), "code.md", "eval"), names))] == said  # type: ignore[attr-defined]


def test_a_sandbox_of_the_form_shown_is_one() -> None:
    names: dict = {"Limits": Limits, "Ran": Ran}
    exec(python("code.md", "class Mine"), names)

    class Echo(names["Mine"]):
        def run(self, program: str, stdin: bytes, limits: Limits) -> Ran:
            return Ran(0, stdin)

    mine: Runner = Echo()
    assert grade("```python\nx\n```", Checks((Stdin("5", "5"),)), sandbox=mine).verdict == "passed"
    assert grade("```python\nx\n```", Checks((Stdin("5", "6"),)), sandbox=mine).verdict == "wrong"


def test_rewards_shown_are_rewards(here: Path) -> None:
    Path("as_trl.py").write_text(python("data.md", "nums"), encoding="utf-8")
    scores = temper.score(["3 and 4", "3"], ["as_trl.py:all_numbers_used"], row={"nums": [3, 4]})
    assert [score.total for score in scores] == [1.0, 0.0]
    model = "class model:\n    scores = staticmethod(lambda texts: [1 / len(text) for text in texts])\n\n"
    Path("many.py").write_text(model + python("data.md", "brevity"), encoding="utf-8")
    assert [score.total for score in temper.score(["ab", "abcd"], ["many.py:brevity"])] == [0.5, 0.25]
