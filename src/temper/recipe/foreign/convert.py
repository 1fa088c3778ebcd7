"""Settings of another tool to a recipe, with what became of each of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from temper.errors import ConfigError, Fault
from temper.recipe.foreign.book import Line, is_absurd, numbers, whole
from temper.recipe.foreign.read import TOOLS, Setting
from temper.recipe.foreign.shell import OPEN
from temper.recipe.foreign.tables import DEFAULTS, KEYS
from temper.recipe.foreign.training import Training
from temper.recipe.meanings import normal
from temper.recipe.recipe import config_class
from temper.recipe.resolved import render
from temper.recipe.words import folder_name
from temper.rewards import REWARDS
from temper.rewards.names import our_name, refusal
from temper.trackers import TRACKERS

_TEXTS = {"@model", "@data", "@test", "@system_prompt", "@chat_template"}  # that may have a `$` in them, or an unknown
_NOT_SFT = {"chosen_key", "rejected_key", "beta", "teacher_model", "placeholder_token"}  # marks of other trainings
_PAIRS = {"dpo", "sigmoid", "ipo", "kto", "orpo", "simpo", "cpo"}


@dataclass
class Converted:
    """A recipe made of another tool's config."""

    tool: str
    kind: str
    recipe: dict[str, Any]
    lines: list[Line]

    def text(self, source: str) -> str:
        """The recipe as YAML, the list of what became of each key in comments below it."""
        head = f"# Made from {source} ({TOOLS[self.tool]}) by `temper import-config`.\n"
        head += "# The list below the recipe says what became of every key.\n"
        listed = [f"# {line}\n" for line in self.listing()]
        return head + render(self.recipe, {}) + "\n" + "".join(listed)

    def listing(self) -> list[str]:
        """One line a key: what, its value, what became of it, and why."""
        lines = []
        for line in sorted(self.lines, key=lambda line: ("converted", "defaulted", "dropped").index(line.fate)):
            arrow = f" -> {line.to}" if line.to else ""
            value = re.sub(r"\s+", " ", str(line.value))
            value = value if len(value) <= 60 else value[:57] + "…"
            lines.append(f"{line.fate:<9} {line.key}: {value}{arrow}" + (f" ({line.reason})" if line.reason else ""))
        return lines


def _open(name: str) -> str:
    return "the file does not say what this stands for: write it here" if OPEN.search(name) else ""


def convert(
    tool: str, settings: Sequence[Setting], name: str, files: Mapping[str, str | None], kind: str | None = None
) -> Converted:
    """The recipe that a config stands for. `files` may name `model`, `train` and `test` in place of the config's.

    Raises ConfigError: no model or no data is named, training that temper has no stage for.
    """
    return _Converter(tool, settings, name, files, kind).convert()


@dataclass
class _Converter(Training):
    """The whole recipe around that stage."""

    def convert(self) -> Converted:
        keys = KEYS[self.tool]
        flat = {setting.key: setting for setting in self.settings}  # the last of a key counts
        self.kind = self.kind or self._kind(flat)
        fields = config_class(self.kind).model_fields
        for setting in self.settings:
            if flat[setting.key] is not setting:
                self._drop(setting, "the same key stands again below, and the last counts")
        for key, setting in flat.items():
            target = keys.get(key, "")
            if setting.value is None or setting.value == "":
                self._drop(setting, "it is empty")
            elif is_absurd(setting.value):
                self._drop(setting, "it is no number that anything is made for")
            elif OPEN.search(str(setting.value)) and target not in _TEXTS:
                self._drop(setting, "what this stands for is not in the file")
            elif target.startswith("@") and target != "@drop":
                self.said[target[1:]] = setting
            elif target in fields:
                self._direct(setting, target)
            else:
                foreign = target and not target.startswith("@")
                self._drop(setting, f"`{target}` is no key of a stage `{self.kind}`" if foreign else "")
        self._lengths_and_batches(fields)
        self._objective()
        self._rest(fields)
        recipe = self._recipe()
        for target, value in DEFAULTS.get((self.tool, self.kind), {}).items():
            is_idle = target == "min_lr_ratio" and self.stage.get("lr_scheduler_type") == "constant"
            if target not in self.stage and target in fields and not is_idle:
                self._default(target, value, f"what {TOOLS[self.tool]} does where nothing is said")
        for setting in self.said.values():
            self._drop(setting, "the key has no such value here" if setting.key in keys else "")
        recipe["stages"][self._stage_name()] |= self.stage
        return Converted(self.tool, self.kind, recipe, self.lines)

    # -- what is trained ----------------------------------------------------------------------------------------------

    def _kind(self, flat: Mapping[str, Setting]) -> str:
        loss = str(flat["loss_type"].value) if "loss_type" in flat else ""
        if loss in _PAIRS or "rpo_alpha" in flat or "precompute_ref_log_probs" in flat:
            fix = "train a `reward_model` on the pairs and let `grpo` follow it; or say `--stage sft`"
            raise ConfigError(Fault("training on pairs directly (DPO and its kind) is no stage here",
                                    flat["loss_type"].where if loss else "", fix=fix))  # fmt: skip
        if self.tool == "openrlhf" and {key.rpartition(".")[2] for key in flat} & _NOT_SFT:
            fix = "a stage `reward_model` learns from pairs, `distill` from a teacher; `grpo` follows a reward model"
            raise ConfigError(Fault("of OpenRLHF's trainings SFT, PPO and its kin are read", fix=fix))
        estimator = next((s.value for s in self.settings if KEYS[self.tool].get(s.key) == "@estimator"), None)
        if self.tool == "trl":
            rl = {"reward_funcs", "num_generations", "max_completion_length", "max_prompt_length", "num_iterations"}
            return "grpo" if rl & set(flat) else "sft"
        if self.tool == "verl":
            if "actor_rollout_ref" not in {key.partition(".")[0] for key in flat}:
                return "sft"
            return "ppo" if estimator in (None, "gae") else "grpo"
        rl = {"actor_learning_rate", "prompt_data", "actor.adam.lr", "data.prompt_dataset", "rollout.batch_size"}
        if rl & set(flat):
            return "ppo" if estimator in (None, "gae") else "grpo"
        return "sft"

    # -- the recipe ---------------------------------------------------------------------------------------------------

    def _recipe(self) -> dict[str, Any]:
        name = str(self._take("name") or self.name)
        self._done("name", f"name: {folder_name(name)}")
        top: dict[str, Any] = {"name": folder_name(name)}
        seed = whole(self._take("seed"))
        if seed is not None and seed >= 0:
            top["seed"] = seed
            self._done("seed", "seed")
        if trackers := self._trackers():
            top["trackers"] = trackers
        stages: dict[str, Any] = {}
        model = self._model()
        if (template := self._take("chat_template")) is not None:
            stages["base"] = {"stage": "import_model", "model": model, "chat_template": template}
            self._done("chat_template", "base.chat_template", "templates belong to models: a stage of its own")
            model = "@base"
        body: dict[str, Any] = {"stage": self.kind, "model": model}
        if self.files.get("train"):
            for key in ("prompt_column", "answer_column"):
                self._give_up(key, "the columns of the file that `--train` names are found by themselves")
            if not self.files.get("test"):
                self._give_up("test", "`--train` counts: name the held-out file with `--test`")
        train, test = self._data("data", "train"), self._data("test", "test", needed=False)
        columns = {ours: self._take(key) for key, ours in (("prompt_column", "prompt"), ("answer_column", "answer"))
                   if isinstance(self._take(key), str)}  # fmt: skip
        where = "tasks.train.columns" if self.kind != "sft" else "sft.columns"
        if self.kind == "sft":
            columns = {}
            self._give_up("prompt_column", "how rows are read is found from their columns; else `columns` of the stage")
            body["data"] = train
            self._give_up("system_prompt", "conversations bring their own: a `system` turn or column")
            self._give_up("test", "conversations held out are not measured: a stage `evaluate` measures tasks")
        else:
            task = {"train": train, **({"test": test} if test else {}), **({"columns": columns} if columns else {})}
            if (system := self._take("system_prompt")) is not None:
                task["system_prompt"] = system
                self._done("system_prompt", "tasks.train.system_prompt")
            top["tasks"] = {"train": task}
            body |= {"tasks": ["train"]}
            self._rewards()
        for key in ("prompt_column", "answer_column"):
            self._done(key, where)
        stages[self._stage_name()] = body
        if test and self.kind != "sft":
            stages["report"] = {"stage": "evaluate", "models": [f"@{self._stage_name()}"], "tasks": ["train"]}
        return top | {"stages": stages}

    def _model(self) -> str:
        named, revision = self._take("model"), self._take("revision")
        model = self.files.get("model") or (named if isinstance(named, str) else None)
        if model is None:
            raise ConfigError(Fault("the config names no model", fix="say which: `--model DIR`"))
        if revision and revision != "main" and not self.files.get("model"):
            model = f"{model}@{revision}"
        self._done("model", f"model: {model}", "`--model` counts" if self.files.get("model") else _open(model))
        self._done("revision", f"model: {model}")
        return model

    def _data(self, target: str, role: str, needed: bool = True) -> str | None:
        if target == "data" and "data" not in self.said:
            self._first_of_mixture()
        named, given = self._take(target), self.files.get(role)
        named = named[0] if isinstance(named, list) and named else named
        if given is None and not isinstance(named, str):
            if needed:
                raise ConfigError(Fault("the config names no data", fix="say which: `--train FILE`"))
            return None
        text = given or self._hub_name(str(named), role)
        several = isinstance(self._take(target), list) and len(self._take(target)) > 1
        more = "only the first of several is taken" if several else _open(text)
        self._done(target, text, "`--" + role + "` counts" if given else more)
        for key in ("config", "split") if role == "train" else ("test_split",):
            self._done(key, text) if not given else self._give_up(key, "a file has no such parts")
        return text

    def _first_of_mixture(self) -> None:
        """Of a mixture of data sets the first, with its configuration and split."""
        mixture = self._take("mixture")
        first = mixture[0] if isinstance(mixture, list) and mixture else None
        if not isinstance(first, dict) or not isinstance(first.get("id") or first.get("path"), str):
            return
        setting = self.said.pop("mixture")
        parts = [first.get("split") or "train", first.get("config") or first.get("name")]
        name = self._hub_name(first.get("id") or first["path"], "train", parts)
        self.said["data"] = replace(setting, value=[name, *mixture[1:]])

    def _hub_name(self, name: str, role: str, parts: Sequence[Any] = ()) -> str:
        """`org/name` as a name of the Hub; a path as it is. `parts` are split and configuration, else the config's."""
        if (
            Path(name).expanduser().exists()
            or re.search(r"\.(jsonl?|csv|parquet|arrow)(\.gz)?$", name)
            or name[:1] in "./~$"
        ):
            return name
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            return name
        named = self._take("split" if role == "train" else "test_split") or role
        split, config = parts or (named, self._take("config"))
        return f"hf://{name}?split={split}" + (f"&name={config}" if config else "")

    def _rewards(self) -> None:
        asked = self._take("rewards")
        asked = asked if isinstance(asked, list) else [asked] if isinstance(asked, str) else []
        weights = self._take("weights")
        weights = weights if asked and numbers(weights, len(asked)) else [1.0] * len(asked)
        ours = ["len_reward" if normal(str(name)) == "length" else our_name(normal(str(name))) for name in asked]
        kept = [(name, float(weight)) for name, weight in zip(ours, weights, strict=True) if name in REWARDS]
        kept = list(dict(kept).items())
        lost = [str(name) for name, our in zip(asked, ours, strict=True) if our not in REWARDS]
        reasons = [f"{name}: {fault.why}; {fault.fix}" for name in ours if (fault := refusal(name))]
        self.stage["reward_funcs"] = [name for name, _ in kept] or ["accuracy"]
        if asked:
            why = f"left out: {', '.join(lost)}: name a function of yours as `file.py:function`" if lost else ""
            why = "; ".join([why, *reasons])
            self._done("rewards", f"rl.reward_funcs: {self.stage['reward_funcs']}", why)
        else:
            self._default(
                "reward_funcs", ["accuracy"], "exact maths answers; a function of yours is `file.py:function`"
            )
        if {"code", "code_reward"} & {normal(str(name)) for name in asked}:
            self.stage["code_score"] = "share"  # what Open-R1's pays
        if any(weight != 1.0 for _, weight in kept):
            self.stage["reward_weights"] = [weight for _, weight in kept]
        self._done("weights", "rl.reward_weights", "" if not lost else "of the rewards that are left")

    def _trackers(self) -> list[str]:
        asked = self._take("trackers")
        named = [str(one) for one in (asked if isinstance(asked, list) else [asked])]
        named += ["wandb"] if self._take("wandb") else []
        found = [name for name in dict.fromkeys(named) if name in TRACKERS]
        for key in ("trackers", "wandb"):
            if found:
                self._done(key, f"trackers: {found}")
            self._give_up(key, "every run writes metrics.jsonl; `trackers` at the top names others")
        return found
