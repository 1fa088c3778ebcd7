// One plot of several lines: values as they are, faint, under their running mean; a click tells the nearest step.
import { number, svg } from "./dom.js";

const WIDTH = 760, HEIGHT = 260, LEFT = 56, RIGHT = 12, TOP = 12, BOTTOM = 28;
const MOST = 1500; // points drawn of a line

export function smooth(values, width) {
  if (width <= 1) return values;
  const found = [];
  let sum = 0, count = 0;
  for (let i = 0; i < values.length; i++) {
    if (values[i] !== null) { sum += values[i]; count++; }
    const old = i - width;
    if (old >= 0 && values[old] !== null) { sum -= values[old]; count--; }
    found.push(count ? sum / count : null);
  }
  return found;
}

function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found;
}

// lines: [{ name, color, x, y, steps }], each with a value; chosen(line, i) is called on a click.
export function chart(lines, width, label, chosen) {
  const xs = lines.flatMap((line) => line.x.filter((x, i) => line.y[i] !== null));
  const ys = lines.flatMap((line) => line.y.filter((y) => y !== null));
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": label });
  if (!xs.length) return root;
  const least = (values) => values.reduce((a, b) => Math.min(a, b)), most = (values) => values.reduce((a, b) => Math.max(a, b));
  let [x0, x1, y0, y1] = [least(xs), most(xs), least(ys), most(ys)];
  if (x0 === x1) x1 = x0 + 1;
  if (y0 === y1) { y0 -= Math.abs(y0) / 10 || 0.5; y1 += Math.abs(y1) / 10 || 0.5; }
  const px = (x) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - ((y - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  for (const y of ticks(y0, y1, 4)) {
    root.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: py(y), y2: py(y), class: "grid" }));
    root.append(svg("text", { x: LEFT - 6, y: py(y) + 4, class: "tick end" }, number(y, 3)));
  }
  for (const x of ticks(x0, x1, 6)) root.append(svg("text", { x: px(x), y: HEIGHT - 8, class: "tick middle" }, number(x, 4)));
  lines.forEach((line) => {
    const color = `line c${line.color}`;
    if (width > 1) root.append(path(line.x, line.y, px, py, `${color} raw`));
    root.append(path(line.x, smooth(line.y, width), px, py, color));
  });
  const told = svg("text", { x: LEFT + 6, y: TOP + 8, class: "tick" });
  const mark = svg("circle", { r: 3.5, class: "mark", visibility: "hidden" });
  root.append(told, mark);
  let near = null;
  root.addEventListener("pointermove", (event) => {
    near = nearest(root, event, lines, px, py);
    if (!near) return;
    const { line, i } = near;
    told.textContent = `${line.name}: ${number(line.y[i])} at step ${number(line.steps[i])}`;
    mark.setAttribute("cx", px(line.x[i]));
    mark.setAttribute("cy", py(line.y[i]));
    mark.setAttribute("visibility", "visible");
  });
  root.addEventListener("click", (event) => {
    near = nearest(root, event, lines, px, py);
    if (near) chosen(near.line, near.i);
  });
  return root;
}

function path(x, y, px, py, name) {
  const every = Math.max(1, Math.floor(x.length / MOST));
  let d = "", pen = false;
  for (let i = 0; i < x.length; i++) {
    if (i % every && i !== x.length - 1) continue;
    if (y[i] === null) { pen = false; continue; }
    d += `${pen ? "L" : "M"}${px(x[i]).toFixed(1)} ${py(y[i]).toFixed(1)}`;
    pen = true;
  }
  return svg("path", { d, class: name });
}

function nearest(root, event, lines, px, py) {
  const frame = root.getBoundingClientRect();
  const x = ((event.clientX - frame.left) / frame.width) * WIDTH, y = ((event.clientY - frame.top) / frame.height) * HEIGHT;
  let best = null, least = Infinity;
  for (const line of lines)
    for (let i = 0; i < line.x.length; i++) {
      if (line.y[i] === null) continue;
      const far = (px(line.x[i]) - x) ** 2 + ((py(line.y[i]) - y) ** 2) / 9;
      if (far < least) [least, best] = [far, { line, i }];
    }
  return best;
}
