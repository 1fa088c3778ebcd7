// Start a recipe that the page knows: what is set of it, the plan, and only then the start.
import { add, api, dot, duration, every, failure, fill, h, link, number, post, select } from "./dom.js";

export async function show(box, [chosen], given, go) {
  const recipes = await api("/recipes");
  const state = { recipe: chosen || "" }; // what is set stands in the address too
  const about = h("div"), controls = h("div.controls"), plan = h("div", { "aria-live": "polite" }), started = h("div");
  const lines = h("textarea.settings", { rows: 4, spellcheck: "false", placeholder: "seed=1\nrl.max_steps=20", "aria-label": "settings, one key=value a line", value: given.set || "",
    oninput: () => { fill(plan); keep(); } });
  const keep = () => go("start", [state.recipe], { set: lines.value }, true);
  const settings = () => lines.value.split("\n").map((line) => line.trim()).filter(Boolean);
  box.append(h("h1", {}, "Start a run"), controls, about, plan, started);
  fill(controls, select("recipe", state.recipe, [["", "choose"], ...recipes.map((one) => [one.id, `${one.name} (${one.from})`])], (value) => go("start", [value].filter(Boolean), {})));
  if (state.recipe) await drawAbout();
  await drawStarted();

  async function drawAbout() {
    const found = await api(`/recipes/${encodeURIComponent(state.recipe)}`);
    const rows = [["", found.top], ...found.stages.map((stage) => [stage.name, stage.config])];
    fill(about, h("p", {}, found.description), faults(found.faults),
      h("label.field", {}, h("span", {}, "what is set otherwise, one key=value a line: numbers, switches, choices, and names that the recipe has"), lines),
      rows.map(([stage, config]) => h("details", {}, h("summary", {}, h("b", {}, stage || "recipe"), ` ${config.length} settings; choose one to change it`),
        h("div.scroll", {}, h("table.settings", {}, h("tbody", {}, config.map((entry) => h(entry.origin === "default" ? "tr.soft" : "tr", {},
          h("th", {}, h("button.plain", { type: "button", onclick: () => change(stage, entry) }, entry.key)), h("td", {}, text(entry.value)), h("td", {}, entry.origin)))))))),
      h("p", {}, h("button", { type: "button", onclick: (event) => makePlan(event.currentTarget) }, "plan")));
  }

  function change(stage, entry) {
    const line = `${stage ? stage + "." : ""}${entry.key}=${typeof entry.value === "string" && /^[\w-]+$/.test(entry.value) ? entry.value : JSON.stringify(entry.value)}`;
    lines.value = [...settings(), line].join("\n");
    fill(plan);
    keep();
    lines.focus();
  }

  async function makePlan(button) {
    button.disabled = true;
    fill(plan, h("p.soft", {}, "Reading the recipe, its files and its models …"));
    try {
      drawPlan(await post("/plan", { recipe: state.recipe, settings: settings() }));
    } catch (error) {
      fill(plan, error.faults && error.faults.length ? faults(error.faults) : h("pre.fault", { role: "alert" }, error.message));
    }
    button.disabled = false;
  }

  function drawPlan(found) {
    const run = found.stages.filter((stage) => stage.runs), bytes = (value) => (typeof value === "number" ? (value >= 1e9 ? `${number(value / 1e9, 3)} GB` : `${number(value / 1e6, 3)} MB`) : "–");
    const changed = h("input", { type: "checkbox" });
    const begin = h("button.go", { type: "button", disabled: found.in_use !== null || !run.length, onclick: () => start(found.plan, changed.checked, begin) }, "start");
    fill(plan, h("h2", {}, `Plan of ${found.run}`), found.said ? h("pre.fault", {}, found.said) : null,
      h("div.scroll", {}, h("table", {}, h("thead", {}, h("tr", {}, ["stage", "kind", "", "time", "memory", "disk", "why"].map((t) => h("th", {}, t)))),
        h("tbody", {}, found.stages.map((stage) => h(stage.runs ? "tr" : "tr.soft", {}, h("th", {}, stage.stage), h("td", {}, stage.kind), h("td", {}, { cached: "done", continue: "goes on", run: "will run" }[stage.state] || stage.state),
          h("td", {}, duration(stage.seconds)), h("td", {}, bytes(stage.memory_bytes)), h("td", {}, bytes(stage.disk_bytes)), h("td.long", {}, (stage.why || []).join("; "))))))),
      h("p.soft", {}, `${run.length} of ${found.stages.length} stages to run; memory ${bytes(found.memory_bytes)} at the peak, ${bytes(found.memory_available_bytes)} available`,
        found.fits === false ? h("b.bad", {}, ": it does not fit") : "", `; disk ${bytes(found.disk_bytes)} at most, ${bytes(found.disk_free_bytes)} free`),
      found.half_done.length ? h("p", {}, h("label", {}, changed, ` ${found.half_done.map((half) => half.stage).join(", ")} stopped half-way under other settings: begin anew`)) : null,
      h("p", {}, begin, " ", h("span.soft", {}, found.in_use !== null ? "another process is at it" : run.length ? "goes on when this page is closed" : "nothing to do: every stage is done already")));
  }

  async function start(number, changed, button) {
    button.disabled = true;
    try {
      await post("/start", { plan: number, changed });
      fill(plan);
      await drawStarted();
    } catch (error) {
      button.disabled = false;
      add(plan, [failure(error)]);
    }
  }

  async function drawStarted() {
    const found = await api("/started");
    if (!found.length) return fill(started);
    fill(started, h("h2", {}, "Started here"), found.map((run) => h("article.card", {},
      h("div.title", {}, h("b", {}, run.is_there ? h("a", { href: link("run", [run.id]) }, run.name) : run.name), dot(run.code === null ? "running" : run.code === 0 ? "done" : run.code === 75 || run.code === 130 || run.code < 0 ? "stopped" : "failed")),
      run.said ? h("details", { open: run.code !== null && run.code !== 0 }, h("summary", {}, "what it said last"), h("pre.said", {}, run.said.split("\n").slice(-40).join("\n"))) : null)));
  }

  return every(3, async () => { if (!started.querySelector("details[open]") || started.querySelector(".running")) await drawStarted(); });
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function faults(found) {
  if (!found || !found.length) return null;
  return h("ul.faults", { role: "alert" }, found.map((fault) => h("li", {}, h("b", {}, fault.what), fault.where ? h("div.soft", {}, fault.where) : null,
    fault.why ? h("div", {}, fault.why) : null, fault.fix ? h("div", {}, fault.fix) : null)));
}
