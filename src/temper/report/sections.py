"""The parts of the report page that are text and tables. Every string that comes from a run is escaped."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from html import escape
from typing import Any

from temper.record.learning_rates import show_count
from temper.record.lines import duration
from temper.report.charts import whisker
from temper.report.graph import Edge, Node, pipeline_svg
from temper.report.stagechart import Score, stage_chart
from temper.report.table import called, coverage, rewards_instead, round_lines
from temper.report.thinking import bounds, samples_curve, thinking

Json = Mapping[str, Any]
KIND_NAMES = {
    "pretrain": "pretraining",
    "sft": "SFT",
    "distill": "distillation",
    "grpo": "GRPO",
    "ppo": "PPO",
    "reward_model": "reward model",
    "sample": "rejection sampling",
    "step_labels": "step labels",
    "preferences": "preference pairs",
    "edit": "edited data",
    "evaluate": "evaluation",
    "import_model": "model",
    "tiny_world": "data",
    "generate": "data",
}


def kind_name(kind: str) -> str:
    return KIND_NAMES.get(kind, kind.replace("_", " "))


def share(value: Any, digits: int = 2) -> str:
    """A score, or a dash."""
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "–"


def seconds(value: Any) -> str:
    """A time for the eye.

    >>> seconds(3.14), seconds(171), seconds(None)
    ('3.1 s', '2:51 min', '–')
    """
    if not isinstance(value, (int, float)):
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    return f"{duration(value)} {'h' if value >= 3600 else 'min'}"


def memory(value: Any) -> str:
    """Bytes for the eye.

    >>> memory(1_610_612_736), memory(300_000_000)
    ('1.6 GB', '300 MB')
    """
    if not isinstance(value, (int, float)):
        return "–"
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def task_names(data: Json) -> list[str]:
    """Tasks that were evaluated: the recipe's order, others after; the first is the one the run is about."""
    seen = dict.fromkeys(task for model in data["models"] for task in model["tasks"])
    return [task for task in data["tasks"] if task in seen] + [task for task in seen if task not in data["tasks"]]


# -- the head ---------------------------------------------------------------------------------------------------------


def head(data: Json) -> str:
    run = data["run"]
    facts = [
        ("started", str(run.get("started") or "–").replace("T", " ")[:16]),
        ("model", _size(data)),
        ("seed", data["seed"]),
        ("wall time", seconds(data["wall_seconds"])),
        ("CPU time", seconds(data["cpu_seconds"])),
        ("peak memory", memory(data["peak_memory_bytes"])),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
    about = f'<p class="about">{escape(str(data["description"]))}</p>' if data["description"] else ""
    title = f'<p class="over">temper report</p><h1>{escape(str(data["recipe"]))}</h1>{about}'
    return f'<header>{title}{verdict(data)}<dl class="facts">{listed}</dl>{_command(run.get("command"))}</header>'


def _size(data: Json) -> str:
    """The parameters of the last model that was made."""
    counts = [stage["parameters"] for stage in data["stages"] if stage["parameters"] and stage["makes"] == "model"]
    return f"{show_count(counts[-1])} parameters" if counts else "–"


def _command(command: Any) -> str:
    if not isinstance(command, list) or not command:
        return ""
    return f'<p class="command"><code>{escape(shlex.join(map(str, command)))}</code></p>'


def verdict(data: Json) -> str:
    """One line: do the claims hold, and what came of it."""
    claims = data["claims"]
    good = sum(claim.get("holds") is True for claim in claims)
    gain = _gain(data)
    if claims:
        css = "good" if good == len(claims) else "bad"
        count = f"All {len(claims)} claims hold." if good == len(claims) else f"{good} of {len(claims)} claims hold."
        return f'<p class="verdict {css}"><strong>{count}</strong> {gain}</p>'
    missing = "" if not data["missing"] else "This run is not finished."
    return f'<p class="verdict open"><strong>{missing}</strong> {gain}</p>' if missing or gain else ""


def _gain(data: Json) -> str:
    tasks, models = task_names(data), data["models"]
    if not tasks or len(models) < 2:
        return ""
    task = tasks[0]
    first, last = (models[i]["tasks"].get(task, {}).get("accuracy") for i in (0, -1))
    if first is None or last is None:
        return ""
    names = f"{escape(models[0]['stage'])} to {escape(models[-1]['stage'])}"
    return f"Held-out accuracy on {escape(task)}: {first:.2f} → {last:.2f} ({names})."


def rounds(data: Json) -> str:
    """What ended the blocks that repeat, or did not yet."""
    items = "".join(f"<li>{escape(line)}</li>" for line in round_lines(data["rounds"]))
    return f'<section class="rounds"><h2>Rounds</h2><ul>{items}</ul></section>' if items else ""


def missing(data: Json) -> str:
    """What a reader does not see: what has not been made yet, and files that are damaged."""
    parts = [("Not there yet", data["missing"]), ("Damaged and left out", data["damaged"])]
    lists = [(title, "".join(f"<li>{escape(text)}</li>" for text in texts)) for title, texts in parts if texts]
    return "".join(f'<section class="missing"><h2>{title}</h2><ul>{items}</ul></section>' for title, items in lists)


def warnings(data: Json) -> str:
    rows = [(stage["name"], row) for stage in data["stages"] for row in stage["findings"]]
    rows.sort(key=lambda pair: pair[1].get("level") == "note")
    items = "".join(_warning(name, str(row.get("level", "warning")), row["text"]) for name, row in rows)
    return f'<section><h2>Warnings and notes</h2><ul class="warnings">{items}</ul></section>' if rows else ""


def _warning(stage: str, level: str, text: str) -> str:
    tag = f'<span class="tag">{escape(level)}</span><span class="who">{escape(stage)}</span>'
    return f'<li class="{escape(level)}">{tag}<span>{escape(text)}</span></li>'


# -- the pipeline -----------------------------------------------------------------------------------------------------


def pipeline(data: Json) -> str:
    nodes = [Node(s["name"], s["kind"], s["makes"], _node_detail(s), s["state"]) for s in data["stages"]]
    edges = [Edge(i["stage"], s["name"], i["carries"]) for s in data["stages"] for i in s["inputs"]]
    picture = pipeline_svg(nodes, edges)
    keys = {"model": "starts from this model", "data": "reads this data set"}
    drawn = [key for key in keys if any(edge.carries == key for edge in edges)]
    legend = "".join(f'<span><i class="key {key}"></i>{keys[key]}</span>' for key in drawn)
    legend = f'<p class="legend">{legend}</p>' if legend else ""
    return f'<section><h2>Pipeline</h2><div class="scroll">{picture}</div>{legend}</section>' if picture else ""


def _node_detail(stage: Json) -> tuple[str, ...]:
    steps = stage["steps"]
    if stage["makes"] == "evaluation":
        count = sum(i["carries"] == "model" for i in stage["inputs"])
        first = f"evaluates {count} model{'s' if count != 1 else ''}"
    else:
        counted = f" · {steps} steps" if steps and stage["makes"] == "model" else ""
        first = kind_name(stage["kind"]) + counted
    if stage["state"] in ("done", "cached"):
        return first, seconds(stage["seconds"]) if stage["seconds"] is not None else ""
    planned = f", step {steps} of {stage['planned_steps']}" if stage["planned_steps"] else ""
    return first, f"{stage['state']}{planned}"


# -- results ----------------------------------------------------------------------------------------------------------


def results(data: Json) -> str:
    if not data["models"]:
        return ""
    lengths = [thinking(data["models"], task) for task in task_names(data)]
    parts = [_story(data), _table(data), *lengths, pass_at(data), comparisons(data), claims(data)]
    return f"<section><h2>Results on held-out problems</h2>{''.join(parts)}</section>"


def _story(data: Json) -> str:
    tasks, models = task_names(data), data["models"]
    wanted = [(tasks[0], "accuracy", f"accuracy, {tasks[0]}")]
    wanted += [
        (tasks[0], key, label) for key, label in (("format", "format"), ("language_consistency", "one language"))
    ]
    wanted += [(task, "accuracy", f"accuracy, {task}") for task in tasks[1:4]]
    scores = []
    for task, key, label in wanted:
        rows = [model["tasks"].get(task, {}) for model in models]
        intervals = [row.get(f"{key}_interval") for row in rows]
        pairs = tuple(bounds(interval) for interval in intervals)
        scores.append(Score(label, tuple(row.get(key) for row in rows), pairs))
    chart = stage_chart("How the scores move from stage to stage", [m["stage"] for m in models], scores)
    return f'<div class="scroll"><div class="wide">{chart}</div></div>' if chart else ""


def _table(data: Json) -> str:
    tasks, models = task_names(data), data["models"]
    main, others = tasks[0], tasks[1:]
    titles = [f"accuracy<small>{escape(main)}</small>", "format", "one language", "truncated", "tokens"]
    titles += [f"accuracy<small>{escape(task)}</small>" for task in others]
    instead = [(task, reward) for task in tasks for reward in rewards_instead(models, task)]
    titles += [f"{escape(reward)}<small>{escape(task)}</small>" for task, reward in instead]
    heads = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    rows = []
    for model in models:
        mine = model["tasks"].get(main, {})
        cells = [_scored(mine, "accuracy"), _scored(mine, "format"), _plain(mine, "language_consistency")]
        cells += [_plain(mine, "truncated"), f"<td>{share(mine.get('mean_tokens'), 0)}</td>"]
        cells += [_scored(model["tasks"].get(task, {}), "accuracy") for task in others]
        cells += [_plain(model["tasks"].get(task, {}).get("rewards") or {}, reward) for task, reward in instead]
        rows.append(f"<tr><th scope='row'>{escape(called(model, mine))}</th>{''.join(cells)}</tr>")
    body = f"<thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="results">{body}</table></div><p class="small">{_setting(data)}</p>'


def _setting(data: Json) -> str:
    first = next(iter(data["models"][0]["tasks"].values()), {})
    counts = ", ".join(
        f"{data['models'][0]['tasks'].get(task, {}).get('n')} {escape(task)}" for task in task_names(data)
    )
    setting = data["sampling"]
    top_p = f", top-p {setting['top_p']:g}" if isinstance(setting.get("top_p"), (int, float)) else ""
    temperature = first.get("temperature")
    at = f" at temperature {temperature:g}{top_p}" if isinstance(temperature, (int, float)) else ""
    return (
        f"{first.get('k')} samples of each of {counts} problems{at}; small numbers are 95 % intervals. "
        "Language is counted over the replies that hold a thought. "
        "Replies are read in the form `tags` where a model's name says no other."
        + "".join(f" {escape(line)}." for line in coverage(data["models"]))
    )


def _scored(row: Json, key: str) -> str:
    value, interval = row.get(key), bounds(row.get(f"{key}_interval"))
    if value is None:
        return "<td>–</td>"
    limits = "" if interval is None else f"<small>{interval[0]:.3f}–{interval[1]:.3f}</small>"
    return f"<td><b>{value:.3f}</b>{whisker(value, interval)}{limits}</td>"


def _plain(row: Json, key: str) -> str:
    value = row.get(key)
    return "<td>–</td>" if value is None else f"<td><b>{value:.3f}</b></td>"


def pass_at(data: Json) -> str:
    """pass@k and cons@k against k for each task where several k were asked for."""
    charts = [
        samples_curve(data["models"], task, key, name)
        for task in task_names(data)
        for key, name in (("pass_at", "pass@k"), ("cons_at", "cons@k"))
    ]
    return "".join(f'<div class="scroll"><div class="wide">{chart}</div></div>' for chart in charts if chart)


def comparisons(data: Json) -> str:
    """Each model beside the one before it: the paired difference, and on how many prompts it does better or worse."""
    items = []
    for row in data["comparisons"]:
        interval = bounds(row.get("interval"))
        if not isinstance(row.get("difference"), (int, float)) or interval is None:
            continue
        css = "good" if interval[0] > 0 else "bad" if interval[1] < 0 else ""
        names = f"{escape(str(row.get('model')))} − {escape(str(row.get('against')))}"
        metric = str(row.get("metric", "accuracy")).replace("_", " ")
        cells = [escape(str(row.get("task"))), escape(metric), f"<b>{row['difference']:+.3f}</b>"]
        cells += [f"{interval[0]:+.3f} to {interval[1]:+.3f}", str(row.get("better")), str(row.get("worse"))]
        listed = "".join(f"<td>{cell}</td>" for cell in cells)
        items.append(f'<tr class="{css}"><th scope="row">{names}</th>{listed}</tr>')
    names = ("", "task", "of", "difference", "95 % interval", "prompts better", "worse")
    heads = "".join(f"<th>{name}</th>" for name in names)
    table = f'<table class="cost"><thead><tr>{heads}</tr></thead><tbody>{"".join(items)}</tbody></table>'
    about = "The same prompts, prompt by prompt; intervals are bootstrapped over prompts."
    title = f'<h3>Each model against the one before it</h3><p class="small">{about}</p>'
    return f'{title}<div class="scroll">{table}</div>' if items else ""


def claims(data: Json) -> str:
    items = []
    for claim in data["claims"]:
        holds = claim.get("holds")
        mark, css = ("✓", "good") if holds else ("✗", "bad")
        value = f"{claim['value']:.3f}" if isinstance(claim.get("value"), (int, float)) else "not measured"
        items.append(
            f'<tr class="{css}"><td class="mark" aria-label="{"holds" if holds else "does not hold"}">{mark}</td>'
            f"<td>{escape(str(claim.get('claim')))}</td><td>{value}</td><td>{escape(str(claim.get('target')))}</td></tr>"
        )
    heads = "<thead><tr><th></th><th>claim</th><th>measured</th><th>wanted</th></tr></thead>"
    return (
        f'<h3>Claims</h3><div class="scroll"><table class="claims">{heads}<tbody>{"".join(items)}</tbody></table></div>'
        if items
        else ""
    )
