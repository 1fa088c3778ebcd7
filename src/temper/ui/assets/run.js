// One run: its stages, warnings and diagnosis, scores, and every setting with where it came from.
import { add, api, dot, duration, every, failure, fill, h, link, number, post, share } from "./dom.js";
import { progress } from "./overview.js";

export async function show(box, [id]) {
  const state = h("div"), settings = h("div"), diagnosis = h("div");
  const [first, page] = await Promise.all([api(`/runs/${id}`), api("/page")]);
  const stop = page.read_only ? null : stopper(id);
  box.append(h("h1", {}, first.name), ...(stop ? [stop.box] : []), state, diagnosis, settings);
  drawState(state, id, first);
  stop?.draw(first);
  drawSettings(settings, first);
  api(`/runs/${id}/explain`).then((found) => drawDiagnosis(diagnosis, found), (error) => fill(diagnosis, h("p.soft", {}, error.message)));
  return every(3, async () => {
    const run = await api(`/runs/${id}`);
    drawState(state, id, run);
    stop?.draw(run);
  });
}

// Stops a run that goes on, asked twice: it saves a checkpoint, and the same recipe goes on from it.
function stopper(id) {
  const told = h("span.soft", { role: "status" });
  let asked = false;
  const button = h("button", { type: "button", onclick: async () => {
    if (!asked) return say(true, "Stop it? It saves a checkpoint, and starting the same recipe goes on from it.");
    say(false, "stopping …");
    try {
      await post(`/runs/${id}/stop`);
    } catch (error) {
      fill(told, failure(error));
    }
  } });
  const box = h("p.stop", { hidden: true }, button, " ", told);
  const say = (again, text) => { asked = again; button.textContent = again ? "yes, stop it" : "stop"; told.textContent = text; };
  say(false, "");
  return { box, draw: (run) => { box.hidden = run.state !== "running"; if (box.hidden) say(false, ""); } };
}

function drawState(box, id, run) {
  const open = box.querySelector("details")?.open;
  fill(box,
    h("p", {}, dot(run.state), " ", h("span.soft", {}, [run.command && run.command.join(" "), run.seed !== null && `seed ${run.seed}`, `CPU ${duration(run.cpu_seconds)}`].filter(Boolean).join(" · "))),
    run.now ? progress(run.now) : null,
    run.told.map((text) => h("p.fault", {}, text)),
    h("h2", {}, "Plan"),
    h("div.scroll", {}, h("table", {},
      h("thead", {}, h("tr", {}, ["stage", "kind", "from", "state", "steps", "time", "CPU", "memory", "warnings", ""].map((t) => h("th", {}, t)))),
      h("tbody", {}, run.stages.map((stage, i) => h("tr", {},
        h("th", {}, stage.name), h("td", {}, stage.kind), h("td", {}, run.settings[i].inputs.map((one) => one.stage).join(", ") || "–"), h("td", {}, dot(stage.state)),
        h("td", {}, stage.planned_steps ? `${number(stage.steps)} of ${number(stage.planned_steps)}` : number(stage.steps)),
        h("td", {}, duration(stage.seconds)), h("td", {}, duration(stage.cpu_seconds)),
        h("td", {}, stage.peak_memory_bytes ? `${number(stage.peak_memory_bytes / 1e6, 3)} MB` : "–"), h("td", {}, number(stage.warnings)),
        h("td", {}, stage.has_metrics ? h("a", { href: link("curves", [], { runs: id, stage: stage.name }) }, "curves") : "", " ",
          stage.makes === "evaluation" ? h("a", { href: link("completions", [id], { step: -1 }) }, "completions")
            : ["grpo", "ppo"].includes(stage.kind) ? h("a", { href: link("completions", [id], { stage: stage.name }) }, "completions") : "")))))),
    warnings(run, open), scores(run));
}

function warnings(run, open) {
  const rows = run.settings.flatMap((stage) => stage.warnings.map((row) => [stage.name, row]));
  if (!rows.length) return null;
  return h("details", { open: open ?? true }, h("summary", {}, `${rows.length} warnings and notes`),
    h("ul", {}, rows.map(([stage, row]) => h(row.level === "note" ? "li.soft" : "li", {}, h("b", {}, `${stage}, step ${row.step}: `), row.text))));
}

function scores(run) {
  if (!run.scores.length) return null;
  const keys = ["accuracy", "format", "language_consistency", "truncated", "mean_tokens", "n"];
  const rows = run.scores.flatMap((model) => Object.entries(model.tasks).map(([task, of]) => [model.stage, task, of]));
  return [h("h2", {}, "Held out"), h("div.scroll", {}, h("table", {},
    h("thead", {}, h("tr", {}, ["model", "task", ...keys.map((key) => key.replace("_", " "))].map((t) => h("th", {}, t)))),
    h("tbody", {}, rows.map(([stage, task, of]) => h("tr", {}, h("th", {}, stage), h("td", {}, task),
      keys.map((key) => h("td", {}, ["mean_tokens", "n"].includes(key) ? number(of[key], 3) : share(of[key])))))))),
    run.scores.length > 1 ? h("p", {}, h("a", { href: link("compare", [], { a_run: run.id, a_stage: run.scores.at(-1).stage, b_run: run.id, b_stage: run.scores[0].stage }) }, `compare ${run.scores.at(-1).stage} with ${run.scores[0].stage}`)) : null];
}

function drawDiagnosis(box, stages) {
  fill(box, h("h2", {}, "Why is the reward as it is?"), stages.map((stage) => [
    h("h3", {}, `${stage.stage} `, h("small", {}, `${stage.kind}, step ${number(stage.step)} of ${number(stage.of)}`)),
    h("p.soft", {}, Object.entries(stage.trend).map(([name, [from, to]]) => `${name} ${number(from, 3)} → ${number(to, 3)}`).join(" · ")),
    h("ul", {}, stage.findings.map((found) => h(found.level === "note" ? "li.soft" : "li", {}, found.text)))]));
}

function drawSettings(box, run) {
  box.append(h("h2", {}, "Settings, and where each came from"));
  const filter = h("input", { type: "search", placeholder: "a key, a value, an origin", "aria-label": "Find a setting", oninput: () => draw() });
  const list = h("div");
  const draw = () => {
    const wanted = filter.value.toLowerCase();
    fill(list, run.settings.map((stage) => {
      const rows = stage.config.filter((entry) => JSON.stringify(entry).toLowerCase().includes(wanted));
      if (!rows.length) return null;
      const set = rows.filter((entry) => entry.origin !== "default").length;
      return h("details", { open: wanted !== "" }, h("summary", {}, h("b", {}, stage.name), ` ${set} set, ${rows.length - set} by default`),
        h("div.scroll", {}, h("table.settings", {}, h("tbody", {}, rows.map((entry) => h(entry.origin === "default" ? "tr.soft" : "tr", {},
          h("th", {}, entry.key), h("td", {}, typeof entry.value === "string" ? entry.value : JSON.stringify(entry.value)), h("td", {}, entry.origin)))))));
    }));
  };
  add(box, [filter, list]);
  draw();
}
