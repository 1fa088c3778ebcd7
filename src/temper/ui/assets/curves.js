// Any metric of any stages of several runs on one plot.
import { add, api, every, fill, h, select } from "./dom.js";
import { chart } from "./chart.js";

const AXES = [["step", "step"], ["completions", "completions"], ["tokens", "tokens"], ["seconds", "time (s)"], ["cpu_seconds", "CPU time (s)"]];
const FIRST = ["reward/total", "reward/accuracy", "loss", "completion/length", "groups/dead", "policy/entropy"];
const SHOWN = 6;

export async function show(box, _, given, go) {
  const runs = await api("/runs");
  const state = { smooth: "10", x: "step", ...given };
  const wanted = new Set((state.runs || runs.slice(0, 1).map((run) => run.id).join(",")).split(",").filter(Boolean));
  const known = runs.filter((run) => wanted.has(run.id));
  const data = new Map(); // "run stage" -> { name, metrics, settings }
  const controls = h("div.controls"), plots = h("div.plots"), legend = h("p.legend");
  box.append(h("h1", {}, "Curves"), chooser(), controls, legend, plots);
  if (!known.length) return add(plots, [h("p.soft", {}, runs.length ? "Choose a run." : "No run yet.")]) && undefined;

  async function load() {
    let changed = false;
    for (const run of known)
      for (const stage of run.stages.filter((s) => s.has_metrics || s.state === "running")) {
        const key = `${run.id} ${stage.name}`;
        const have = data.get(key);
        const after = have && have.metrics.step && have.metrics.step.length ? have.metrics.step.at(-1) : -1;
        if (have && stage.state !== "running" && have.state === stage.state) continue;
        const found = await api(`/runs/${run.id}/curves/${encodeURIComponent(stage.name)}`, { after });
        if (have && found.metrics.step && found.metrics.step.length) {
          const length = have.metrics.step.length;
          for (const name of new Set([...Object.keys(have.metrics), ...Object.keys(found.metrics)]))
            have.metrics[name] = [...(have.metrics[name] || Array(length).fill(null)), ...(found.metrics[name] || Array(found.metrics.step.length).fill(null))];
          changed = true;
        } else if (!have) {
          data.set(key, { run, stage: stage.name, metrics: found.metrics });
          changed = true;
        }
        data.get(key).state = stage.state;
      }
    return changed;
  }

  function chooser() {
    return h("details.choose", { open: !known.length }, h("summary", {}, `${known.length} of ${runs.length} runs`),
      runs.map((run) => h("label", {}, h("input", { type: "checkbox", checked: wanted.has(run.id), onchange: (event) => {
        if (event.target.checked) wanted.add(run.id); else wanted.delete(run.id);
        go("curves", [], { ...given, runs: [...wanted].join(",") });
      } }), ` ${run.name}`)));
  }

  const stages = () => [...new Set([...data.values()].map((one) => one.stage))];
  const metrics = () => {
    const names = new Set();
    for (const one of data.values()) if (!state.stage || one.stage === state.stage)
      for (const [name, column] of Object.entries(one.metrics)) if (name !== "step" && column.some((v) => typeof v === "number")) names.add(name);
    const sorted = [...names].sort();
    return [...FIRST.filter((name) => names.has(name)), ...sorted.filter((name) => !FIRST.includes(name))];
  };
  const set = (key) => (value) => { state[key] = value; go("curves", [], { ...state, runs: [...wanted].join(",") }, true); drawAll(); };

  function axis(one) {
    const { step } = one.metrics;
    if (state.x === "step") return step;
    const column = { completions: "completions", tokens: "tokens", seconds: "seconds", cpu_seconds: "cpu_seconds" }[state.x];
    let sum = 0;
    if (state.x === "tokens" && !one.metrics.tokens) // as many as were drawn in the time
      return step.map((_, i) => (sum += ((one.metrics.tokens_per_second || [])[i] || 0) * ((one.metrics.seconds || [])[i] || 0)));
    if (state.x === "completions" && !one.metrics.completions) return step.map((s) => s * perStep(one));
    return step.map((_, i) => (sum += (one.metrics[column] || [])[i] || 0));
  }

  function perStep(one) {
    const config = Object.fromEntries((one.config || []).map((entry) => [entry.key, entry.value]));
    return (config.num_generations || 1) * (config.prompts_per_step || config.batch_size || 1);
  }

  function drawControls() {
    fill(controls,
      select("stage", state.stage || "", [["", "all stages"], ...stages()], set("stage")),
      select("metric", state.metric || "", [["", "the usual ones"], ...metrics()], set("metric")),
      select("x", state.x, AXES, set("x")),
      h("label.field", {}, h("span", {}, "smoothing"), h("input", { type: "range", min: 1, max: 100, value: state.smooth, "aria-label": "smoothing, in steps",
        oninput: (event) => set("smooth")(event.target.value) })));
  }

  function drawAll() {
    const names = state.metric ? [state.metric] : metrics().slice(0, SHOWN);
    const shown = [...data.values()].filter((one) => (!state.stage || one.stage === state.stage) && one.metrics.step);
    const title = (one) => (known.length > 1 ? `${one.run.name}${one.run.seed === null || one.run.seed === undefined ? "" : `, seed ${one.run.seed}`}: ` : "") + one.stage;
    const withAny = shown.filter((one) => names.some((name) => one.metrics[name]));
    fill(legend, withAny.map((one, k) => h("span", {}, h(`i.c${(k % 6) + 1}`), title(one))));
    fill(plots, names.map((name) => {
      const lines = withAny.map((one, k) => ({ name: title(one), of: one, color: (k % 6) + 1, x: axis(one), steps: one.metrics.step,
        y: (one.metrics[name] || one.metrics.step.map(() => null)).map((v) => (typeof v === "number" ? v : null)) }));
      const drawn = lines.filter((line) => line.y.some((y) => y !== null));
      if (!drawn.length) return null;
      return h("figure", {}, h("figcaption", {}, name), chart(drawn, Number(state.smooth), name, (line, i) =>
        go("completions", [line.of.run.id], { stage: line.of.stage, near: line.steps[i] })));
    }));
    if (!plots.childElementCount) plots.append(h("p.soft", {}, "No such curve yet."));
  }

  await load();
  await Promise.all(known.map(async (run) => {
    const about = await api(`/runs/${run.id}`);
    for (const one of data.values()) if (one.run.id === run.id) one.config = (about.settings.find((s) => s.name === one.stage) || {}).config;
  }));
  drawControls();
  drawAll();
  return every(3, async () => {
    const fresh = await api("/runs");
    known.forEach((run) => Object.assign(run, fresh.find((other) => other.id === run.id) || {}));
    if (await load()) drawAll();
  });
}
