// All runs: their state, where they are, what they cost, what they scored and claim.
import { smooth } from "./chart.js";
import { api, dot, duration, every, fill, h, link, number, share, svg } from "./dom.js";

export async function show(box) {
  const head = h("div.head", {}, h("h1", {}, "Runs"), h("p.soft"));
  const body = h("div.cards");
  box.append(head, body);
  const draw = async () => {
    const runs = await api("/runs");
    const live = runs.filter((run) => run.state === "running").length;
    head.lastChild.textContent = `${number(runs.length)} runs, ${number(live)} running`;
    if (runs.length > 1) head.lastChild.append(" · ", h("a", { href: link("curves", [], { runs: runs.slice(0, 6).map((r) => r.id).join(",") }) }, "their curves together"));
    const kept = new Set([...body.querySelectorAll("details[open]")].map((d) => d.dataset.run));
    fill(body, runs.length ? runs.map((run) => card(run, kept)) : h("p.soft", {}, "No run in the folders yet: `temper run RECIPE` makes one, or Start above."));
  };
  await draw();
  return every(3, draw);
}

function card(run, kept) {
  const now = run.now;
  return h("article.card", { "data-run": run.id },
    h("div.title", {}, h("h2", {}, h("a", { href: link("run", [run.id]) }, run.name)), dot(run.state)),
    h("p.soft", {}, [run.recipe, run.seed !== null && `seed ${run.seed}`, run.started && String(run.started).replace("T", " ").slice(0, 16)].filter(Boolean).join(" · ")),
    run.damaged ? h("p.fault", {}, run.damaged === 1 ? "a damaged file is left out" : `${run.damaged} damaged files are left out`) : null,
    now ? progress(now) : null,
    h("dl.facts", {},
      fact("CPU", duration(run.cpu_seconds)), fact("Time", duration(run.wall_seconds)),
      fact("Stages", `${run.stages.filter((s) => ["done", "cached"].includes(s.state)).length} of ${run.stages.length}`),
      fact("Warnings", run.stages.reduce((sum, s) => sum + s.warnings, 0))),
    scores(run), claims(run, kept),
    h("p.links", {}, h("a", { href: link("completions", [run.id]) }, "completions"), h("a", { href: link("curves", [], { runs: run.id }) }, "curves"), h("a", { href: link("chat", [run.id]) }, "chat")));
}

const fact = (name, value) => [h("div", {}, h("dt", {}, name), h("dd", {}, value))];

export function progress(stage) {
  const part = stage.planned_steps ? stage.steps / stage.planned_steps : 0;
  const bar = h("div.bar", { role: "progressbar", "aria-valuenow": Math.round(100 * part), "aria-label": stage.name }, h("i"));
  bar.firstChild.style.width = `${Math.min(100, 100 * part)}%`;
  const eta = stage.eta === null ? "" : `, about ${duration(stage.eta)} left`;
  return h("div.progress", {}, h("span", {}, `${stage.name}: step ${number(stage.steps)} of ${number(stage.planned_steps)}${eta}`), bar, stage.curve ? spark(stage.curve) : null);
}

// The curve of a stage that goes on, small.
function spark({ name, x, y }) {
  if (y.length < 2) return null;
  const low = Math.min(...y), high = Math.max(...y), px = (v) => (300 * (v - x[0])) / (x.at(-1) - x[0] || 1), py = (v) => 40 - (36 * (v - low)) / (high - low || 1);
  const d = (values) => values.map((v, i) => `${i ? "L" : "M"}${px(x[i]).toFixed(1)} ${py(v).toFixed(1)}`).join("");
  return h("div", {}, h("small", {}, `${name} ${number(y.at(-1), 3)}`), svg("svg", { viewBox: "0 0 300 44", class: "spark", role: "img", "aria-label": `${name} so far` },
    svg("path", { d: d(y), class: "line c1 raw" }), svg("path", { d: d(smooth(y, Math.ceil(y.length / 12))), class: "line c1" })));
}

function scores(run) {
  if (!run.models.length) return null;
  const tasks = [...new Set(run.models.flatMap((m) => Object.keys(m.tasks)))];
  return h("div.scroll", {}, h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "held out"), tasks.map((task) => h("th", {}, task)))),
    h("tbody", {}, run.models.map((m) => h("tr", {}, h("th", {}, m.stage), tasks.map((task) => h("td", {}, m.tasks[task] ? share(m.tasks[task].accuracy) : "–")))))));
}

function claims(run, kept) {
  if (!run.claims.length) return null;
  const held = run.claims.filter((claim) => claim.holds).length;
  return h("details", { "data-run": run.id, open: kept.has(run.id) }, h("summary", {}, `${held} of ${run.claims.length} claims hold`),
    h("ul.claims", {}, run.claims.map((claim) => h(claim.holds ? "li.good" : "li.bad", {}, claim.claim, ` (${number(claim.value)}, wanted ${claim.target})`))));
}
