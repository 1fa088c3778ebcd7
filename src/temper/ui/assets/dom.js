// Elements, numbers and requests. Text reaches the page as text nodes only: nothing here reads markup.

export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value") element.value = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  return add(element, children);
}

export function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  return add(element, children);
}

export function fill(element, ...children) {
  element.replaceChildren();
  return add(element, children);
}

export const api = (path, parameters = {}) => ask("/api" + path + query(parameters), { headers: { Accept: "application/json" } });

export const post = (path, body = {}) => ask("/api" + path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

async function ask(path, how) {
  const response = await fetch(path, how);
  const said = await response.json().catch(() => ({}));
  if (response.ok) return said;
  const error = new Error(said.error ? said.error.message : `the page's server answered ${response.status}`);
  throw Object.assign(error, { faults: said.faults || [] });
}

export function query(parameters) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return kept.length ? "?" + new URLSearchParams(kept) : "";
}

export const link = (view, parts = [], parameters = {}) =>
  "#/" + [view, ...parts.map(encodeURIComponent)].join("/") + query(parameters);

export function number(value, digits = 4) {
  if (typeof value !== "number") return value === null || value === undefined ? "–" : String(value);
  if (Number.isInteger(value)) return (value || 0).toLocaleString("en-US"); // no minus before a zero
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(digits)));
}

export const share = (value) => (typeof value === "number" ? `${(100 * value).toFixed(1)} %` : "–");

export function duration(seconds) {
  if (typeof seconds !== "number") return "–";
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  const parts = s < 3600 ? [Math.floor(s / 60), s % 60] : [Math.floor(s / 3600), Math.floor((s % 3600) / 60), s % 60];
  return parts.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
}

export const dot = (state) => h("span.state." + String(state).replace(/\W/g, ""), {}, state);

export const failure = (error) => h("p.fault", { role: "alert" }, error.message || String(error));

export function select(label, value, options, change) {
  const field = h("select", { onchange: (event) => change(event.target.value), "aria-label": label });
  for (const option of options) {
    const [key, text] = Array.isArray(option) ? option : [option, option];
    field.append(h("option", { value: key, selected: String(key) === String(value ?? "") }, text));
  }
  return h("label.field", {}, h("span", {}, label), field);
}

export function debounced(action, wait = 250) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), wait);
  };
}

// Ask again while the page is looked at; a failure is said and tried on.
export function every(seconds, action) {
  let stopped = false;
  const tick = async () => {
    if (stopped) return;
    if (!document.hidden) {
      try {
        await action();
        document.getElementById("pulse").textContent = "";
      } catch (error) {
        document.getElementById("pulse").textContent = error.message.includes("fetch") ? "the server of this page has ended" : error.message;
      }
    }
    if (!stopped) setTimeout(tick, 1000 * seconds);
  };
  setTimeout(tick, 1000 * seconds);
  return () => { stopped = true; };
}
