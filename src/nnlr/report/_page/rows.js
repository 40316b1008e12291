// The rows of the plan, and the tree of modules that they are in.
"use strict";

// The rows, in model order.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const [kindOf, shapeOf, roleOf] = data.of;
let before = [];
const rows = data.rest.map((rest, at) => {
  const path = before.slice(0, data.shared[at]).concat(rest.split("."));
  before = path.slice(0, -1);
  const shape = data.shapes[shapeOf[at]];
  const [role, basis] = data.roles[roleOf[at]];
  const numel = shape.reduce((product, size) => product * size, 1);
  const [name, aliases] = [path.join("."), data.aliases[at] || []];
  const texts = [name, ...aliases].map((text) => text.toLowerCase());
  return { at, path, name, searched: texts, shape, numel, role, basis, aliases, ...data.kinds[kindOf[at]] };
});

// Texts become text nodes, never markup.
const make = (tag, attributes, ...children) => {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
};
const isolated = (text) => make("bdi", { dir: "ltr" }, text);
const amount = (number) => {
  if (number >= 1e9) return `${(number / 1e9).toFixed(1)}G`;
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)}M`;
  return number >= 1e4 ? `${(number / 1e3).toFixed(1)}k` : number.toLocaleString("en");
};
const tensors = (number) => `${number.toLocaleString("en")} tensor${number === 1 ? "" : "s"}`;
const place = (value, [low, high]) => (low === high ? 1 : Math.log(value / low) / Math.log(high / low));
const share = (value, scale) => (value > 0 ? 0.08 + 0.92 * place(value, scale) : 0);

// The tree of the modules that some rows are in.
const grow = (chosen) => {
  const root = { path: "", label: "", modules: new Map(), children: [], level: 0 };
  for (const row of chosen) {
    let at = root;
    for (const part of row.path.slice(0, -1)) {
      if (!at.modules.has(part)) {
        const path = at === root ? part : `${at.path}.${part}`;
        const module = { path, label: part, modules: new Map(), children: [], up: at };
        at.modules.set(part, module);
        at.children.push(module);
      }
      at = at.modules.get(part);
    }
    at.children.push({ row, label: row.path[row.path.length - 1], up: at });
  }
  settle(root, 0);
  return root;
};
// Joins modules that hold nothing but one module, and adds up what each holds.
const settle = (node, level) => {
  while (level && node.children.length === 1 && node.children[0].modules) {
    const only = node.children[0];
    node.label += `.${only.label}`;
    node.path = only.path;
    node.children = only.children;
  }
  Object.assign(node, { level, count: 0, numel: 0, lr: null, wd: null, states: new Set(), moves: new Set() });
  for (const child of node.children) {
    child.up = node;
    if (child.modules) settle(child, level + 1);
    else child.level = level + 1;
    node.count += child.row ? 1 : child.count;
    node.numel += child.row ? child.row.numel : child.numel;
    for (const state of child.row ? [child.row.state] : child.states) node.states.add(state);
    if (child.row && child.row.state !== "trained") continue;
    for (const key of child.row ? child.row.moves || [] : child.moves) node.moves.add(key);
    node.lr = widened(node.lr, child.row ? span(child.row.lr, child.row.texts[0]) : child.lr);
    node.wd = widened(node.wd, child.row ? span(child.row.wd, child.row.texts[1]) : child.wd);
  }
};
const span = (value, text) => ({ low: value, high: value, lowText: text, highText: text });
const widened = (one, two) => {
  if (!one || !two) return one || two;
  const [low, high] = [one.low <= two.low ? one : two, one.high >= two.high ? one : two];
  return { low: low.low, lowText: low.lowText, high: high.high, highText: high.highText };
};
