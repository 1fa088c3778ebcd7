// Which view an address shows. All state of a view stands in the address: a reload or a link loses nothing.
import { add, api, failure, fill, h, link } from "./dom.js";
import * as overview from "./overview.js";
import * as run from "./run.js";
import * as curves from "./curves.js";
import * as completions from "./completions.js";
import * as compare from "./compare.js";
import * as chat from "./chat.js";
import * as start from "./start.js";

const VIEWS = { "": overview, run, curves, completions, compare, chat, start };
const NAMES = { "": "Overview", run: "Run", curves: "Curves", completions: "Completions", compare: "Compare", chat: "Chat", start: "Start" };
const view = document.getElementById("view");
const nav = document.getElementById("nav");
let leave = () => {};
let shown = 0;
let readOnly = true; // until the server has said

function place() {
  const [path, parameters = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = path.split("/").map(decodeURIComponent);
  return { name, parts, given: Object.fromEntries(new URLSearchParams(parameters)) };
}

function drawNav(name, run) {
  const items = Object.entries(NAMES).filter(([key]) => (key !== "run" || run) && (key !== "start" || !readOnly));
  fill(nav, items.map(([key, text]) => {
    const parts = run && ["run", "completions", "chat"].includes(key) ? [run] : [];
    const parameters = run && key === "curves" ? { runs: run } : {};
    return h("a", { href: link(key, parts, parameters), "aria-current": key === name ? "page" : null }, text);
  }));
}

async function show() {
  const turn = ++shown;
  leave();
  leave = () => {};
  const { name, parts, given } = place();
  const chosen = VIEWS[name] || overview;
  const run = (name !== "start" && parts[0]) || (given.runs || "").split(",")[0] || given.a_run || "";
  drawNav(name, run);
  document.title = `${NAMES[name] || "Overview"} · temper`;
  const box = h("section.view");
  fill(view, box);
  try {
    const ended = await chosen.show(box, parts, given, go);
    if (turn === shown) leave = ended || leave;
    else if (ended) ended();
  } catch (error) {
    if (turn === shown) add(box, [failure(error)]);
  }
}

// Change the parameters of the address without a new entry in the history for each letter typed.
function go(name, parts, parameters, replace = false) {
  const to = link(name, parts, parameters);
  if (to === location.hash) return;
  if (replace) {
    history.replaceState(null, "", to);
    drawNav(name, (name !== "start" && parts[0]) || "");
  } else location.hash = to;
}

addEventListener("hashchange", show);
api("/page").then((page) => { readOnly = page.read_only; }, () => {}).then(show);
