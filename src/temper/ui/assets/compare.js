// Two measured models on the same prompts: paired, with intervals and the prompts that flipped.
import { api, failure, fill, h, link, number, select } from "./dom.js";

export async function show(box, _, given, go) {
  const runs = await api("/runs");
  const measured = runs.flatMap((run) => run.models.map((model) => ({ key: `${run.id}/${model.stage}`, run, stage: model.stage, tasks: Object.keys(model.tasks) })));
  const options = [["", "choose"], ...measured.map((one) => [one.key, `${one.run.name} · ${one.stage}`])];
  const state = { metric: "", ...given };
  const result = h("div"), controls = h("div.controls");
  box.append(h("h1", {}, "Compare"), controls, result);
  const set = (key) => (value) => {
    if (key === "metric") state.metric = value;
    else {
      state[`${key}_run`] = value.split("/")[0];
      state[`${key}_stage`] = value.slice(value.indexOf("/") + 1);
    }
    go("compare", [], state, true);
    draw();
  };
  const chosen = (side) => (state[`${side}_run`] ? `${state[`${side}_run`]}/${state[`${side}_stage`]}` : "");
  fill(controls, select("A", chosen("a"), options, set("a")), select("B", chosen("b"), options, set("b")),
    select("metric", state.metric, [["", "the main one"], "accuracy", "format", "language_consistency", "mean_tokens", "truncated", "pass@k", "cons@k"], set("metric")));

  async function draw() {
    if (!state.a_run || !state.b_run) return fill(result, h("p.soft", {}, measured.length ? "Choose two models that were measured on the same prompts." : "No run here has measured a model yet."));
    try {
      const found = await api("/compare", state);
      fill(result, Object.entries(found.tasks).map(([task, of]) => table(task, of, found, state)));
    } catch (error) {
      fill(result, failure(error));
    }
  }
  await draw();
}

function table(task, of, found, state) {
  const [low, high] = of.interval;
  const clear = low > 0 || high < 0;
  return h("section", {}, h("h2", {}, `${task}, ${of.metric.replace("_", " ")}`),
    h("p", {}, `A ${number(of.a, 3)}, B ${number(of.b, 3)}: A − B `, h(clear ? (low > 0 ? "b.good" : "b.bad") : "b", {}, `${of.difference >= 0 ? "+" : ""}${number(of.difference, 3)}`),
      ` (95 % interval ${number(low, 3)} to ${number(high, 3)}), ${of.n} prompts; sign test p = ${number(of.p_value, 2)}`),
    span(low, high, of.difference),
    h("p.soft", {}, `A better on ${of.better} prompts, worse on ${of.worse}, equal on ${of.equal}. Samples: both right ${of.both_right}, only A ${of.only_a}, only B ${of.only_b}, neither ${of.neither}.`),
    of.flipped.length ? h("details", {}, h("summary", {}, `${of.flipped_count} prompts differ${of.flipped_count > of.flipped.length ? `, the first ${of.flipped.length}` : ""}`),
      h("table", {}, h("thead", {}, h("tr", {}, ["prompt", "A", "B"].map((t) => h("th", {}, t)))), h("tbody", {}, of.flipped.map((row) => h("tr", {},
        h("th", {}, row.prompt_id), h("td", {}, h("a", { href: search(state.a_run, found.a.model, task, row) }, number(row.a, 3))), h("td", {}, h("a", { href: search(state.b_run, found.b.model, task, row) }, number(row.b, 3)))))))) : null);
}

const search = (run, stage, task, row) => link("completions", [run], { stage, task, step: -1, prompt_id: row.prompt_id });

function span(low, high, middle) {
  const most = Math.max(Math.abs(low), Math.abs(high), 0.01) * 1.2;
  const at = (x) => `${50 + (50 * x) / most}%`;
  const bar = h("div.interval", { "aria-hidden": "true" }, h("i.zero"), h("i.range"), h("i.point"));
  bar.children[1].style.left = at(low);
  bar.children[1].style.width = `${(50 * (high - low)) / most}%`;
  bar.children[2].style.left = at(middle);
  return bar;
}
