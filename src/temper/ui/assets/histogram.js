// How a measure is spread over the completions that fit.
import { h, number, svg } from "./dom.js";

// Bars of one reward's values; a click keeps what lies in the bar.
export function histogram(found, state, chosen, set) {
  if (!found.bins || !found.bins.length) return h("span");
  const most = Math.max(1, ...found.bins.map((bin) => bin[2])), width = 300 / found.bins.length;
  const root = svg("svg", { viewBox: "0 0 300 56", class: "histogram", role: "img", "aria-label": `how ${found.name} is spread` });
  found.bins.forEach(([low, high, n], i) => {
    const tall = n ? Math.max(1.5, (40 * n) / most) : 0;
    const label = `${number(low, 3)} to ${number(high, 3)}: ${number(n)}`;
    root.append(svg("rect", { x: i * width + 0.5, y: 42 - tall, width: width - 1, height: tall, class: "bin" }),
      svg("rect", { x: i * width, y: 0, width, height: 42, class: "hit", onclick: () => set({ by: found.name, low: String(low), high: String(high) }) }, svg("title", {}, label)));
  });
  root.append(svg("text", { x: 0, y: 54, class: "tick" }, number(found.bins[0][0], 3)), svg("text", { x: 300, y: 54, class: "tick end" }, number(found.bins.at(-1)[1], 3)));
  const bounded = found.name === chosen && ((state.low ?? "") !== "" || (state.high ?? "") !== "");
  return h(bounded ? "div.bounded" : "div", {}, h("small", {}, h("b", {}, found.name), " ", bounded ? h("button", { type: "button", onclick: () => set({ low: "", high: "" }) }, "all values") : ""), root);
}
