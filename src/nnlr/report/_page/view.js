// What is shown, as the address says too, and how it is drawn: only the rows in sight.

const selects = [...document.querySelectorAll("[data-by]")];
const view = { q: "", by: {}, as: "tree", sort: "", row: "" };
const toggled = new Map();
let chosen; // rows that fit the search and the filters
let root = null; // of their tree
let items; // rows, and modules in the tree, from top to bottom
let active = 0; // the position that the keys have reached
let openLevel = 0; // how deep the tree is open at first
let whole = false; // whether all is drawn, to print it

const readAddress = () => {
  const asked = new URLSearchParams(location.hash.slice(1));
  view.q = asked.get("q") || "";
  view.as = asked.get("view") === "table" ? "table" : "tree";
  view.sort = asked.get("sort") || "";
  view.row = asked.get("row") || "";
  view.by = {};
  for (const select of selects)
    if (asked.get(select.dataset.by)) view.by[select.dataset.by] = asked.get(select.dataset.by);
  byId("search").value = view.q;
  for (const select of selects) select.value = view.by[select.dataset.by] || "";
  return view.q || view.as === "table" || view.sort || view.row || Object.keys(view.by).length > 0;
};
const writeAddress = () => {
  const asked = new URLSearchParams();
  if (view.q) asked.set("q", view.q);
  for (const [key, value] of Object.entries(view.by)) asked.set(key, value);
  if (view.as === "table") asked.set("view", "table");
  if (view.sort) asked.set("sort", view.sort);
  if (view.row) asked.set("row", view.row);
  const hash = asked.toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
};

const wanted = (row) => {
  for (const [key, value] of Object.entries(view.by)) if (String(row[key] ?? "") !== value) return false;
  return true;
};
// Each word is a part of a name, or with stars a pattern for the whole of it.
const tests = () =>
  view.q
    .toLowerCase()
    .split(/\s+/)
    .filter(Boolean)
    .map((word) => {
      if (!word.includes("*")) return (text) => text.includes(word);
      const literal = word.replace(/[.+?^${}()|[\]\\]/g, "\\$&");
      const pattern = new RegExp(`^${literal.replaceAll("*", ".*")}$`);
      return (text) => pattern.test(text);
    });
const keys = {
  name: (row) => row.name,
  layer: (row) => row.layer ?? -1,
  role: (row) => row.role,
  numel: (row) => row.numel,
  lr: (row) => (row.state === "trained" ? row.lr : -1),
  wd: (row) => (row.state === "trained" ? row.wd : -1),
  group: (row) => row.group || "",
};
const sorted = (list) => {
  const down = view.sort.startsWith("-");
  const key = keys[view.sort.replace("-", "")];
  if (!key) return list;
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  return [...list].sort((a, b) => (down ? -1 : 1) * compare(key(a), key(b)) || a.at - b.at);
};
const filtering = () => Boolean(view.q || Object.keys(view.by).length);
const isOpen = (node) =>
  toggled.get(node.path) ?? (filtering() && chosen.length <= 500 ? true : node.level <= openLevel);

const choose = () => {
  const all = tests();
  chosen = rows.filter((row) => wanted(row) && all.every((test) => row.searched.some(test)));
  toggled.clear();
  root = null;
  arrange();
};
// As many levels are open at first as fit on a screen or two.
const firstLevel = () => {
  let level = 0;
  let nodes = [root];
  for (;;) {
    const below = nodes.flatMap((node) => node.children.filter((child) => child.modules));
    const shown = below.reduce((sum, node) => sum + node.children.length, 0);
    if (!below.length || shown + nodes.length > 36) return Math.max(level, 0.5);
    [level, nodes] = [level + 1, below];
  }
};
const arrange = () => {
  const was = items && items[active];
  if (view.as === "table") items = sorted(chosen).map((row) => ({ row, label: row.name }));
  else {
    root ||= grow(chosen);
    openLevel ||= firstLevel();
    items = [];
    const walk = (node) =>
      node.children.forEach((child, at) => {
        child.at = at;
        items.push(child);
        if (child.modules && isOpen(child)) walk(child);
      });
    walk(root);
  }
  active = Math.max(0, was ? items.findIndex((item) => same(item, was)) : 0);
  describe();
  draw();
};
const same = (one, two) => (one.row ? one.row === two.row : one.path === two.path && !two.row);

const grid = byId("grid");
const body = byId("rows");
const describe = () => {
  const numel = chosen.reduce((sum, row) => sum + row.numel, 0);
  const of = chosen.length < rows.length ? ` of ${rows.length.toLocaleString("en")}` : "";
  byId("count").textContent =
    `${chosen.length.toLocaleString("en")}${of} parameters, ${amount(numel)} elements`;
  grid.hidden = !chosen.length;
  byId("none").hidden = chosen.length > 0;
  byId("reset").hidden = !filtering();
  byId("as-tree").setAttribute("aria-pressed", view.as === "tree");
  byId("as-table").setAttribute("aria-pressed", view.as === "table");
  for (const id of ["expand", "collapse"]) byId(id).hidden = view.as === "table";
  grid.setAttribute("role", view.as === "tree" ? "treegrid" : "grid");
  grid.setAttribute("aria-rowcount", items.length + 1);
  for (const button of grid.querySelectorAll("[data-sort]")) {
    const [th, key] = [button.parentElement, button.dataset.sort];
    if (view.sort.replace("-", "") !== key) th.removeAttribute("aria-sort");
    else th.setAttribute("aria-sort", view.sort.startsWith("-") ? "descending" : "ascending");
  }
};

// The cells of a row, by the first class of their column.
const columns = [...grid.querySelectorAll("thead th")].map((th) => th.className);
const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
const meter = (range, scale, colour) => {
  const [from, to] = [share(range.low, scale), share(range.high, scale)];
  const start = range.low === range.high || !from ? 0 : from;
  const fill = make("i", {
    class: colour || `c${range.high > 0 ? Math.round(place(range.high, scale) * 8) : 0}`,
  });
  fill.style.left = `${100 * start}%`;
  fill.style.width = to ? `max(2px, ${100 * (to - start)}%)` : "0";
  return make("span", { class: "meter", "aria-hidden": "true" }, fill);
};
const rated = (range, scale, colour, moves) => {
  const text = range.low === range.high ? range.lowText : `${range.lowText} \u2013 ${range.highText}`;
  const mark = moves ? make("abbr", { title: "moves while training" }, " ~") : null;
  const value = make("span", { class: "value" }, text);
  if (mark) value.append(mark);
  return make("div", { class: "rate" }, value, meter(range, scale, colour));
};
const moving = (item, key) => new Set(item.row ? item.row.moves : item.moves).has(key);
const off = (states) => {
  const word = [...states].join(", ");
  const pattern = make("span", {
    class: `meter ${states.has("locked") ? "locked" : "frozen"}`,
    "aria-hidden": "true",
  });
  return make("div", { class: "rate" }, make("span", { class: "value off" }, word), pattern);
};
const cell = {
  name: (item) => {
    const indent = make("span", { class: "indent" });
    indent.style.flex = `0 0 ${view.as === "tree" ? (item.level - 1) * 18 : 0}px`;
    const twist = item.modules ? make("span", { class: "twist", "aria-hidden": "true" }) : null;
    const spare = view.as === "tree" && !item.modules ? make("span", {}) : null;
    if (spare) spare.style.flex = "0 0 18px";
    return make(
      "div",
      {},
      indent,
      twist,
      spare,
      make(
        "button",
        { type: "button", tabindex: -1, title: item.row ? item.row.name : item.path },
        isolated(item.label),
      ),
    );
  },
  layer: (item) => (item.row && item.row.layer !== undefined ? String(item.row.layer) : ""),
  role: (item) => (item.row ? item.row.role : ""),
  numel: (item) => amount(item.row ? item.row.numel : item.numel),
  lr: (item) => {
    const states = item.row ? new Set([item.row.state]) : item.states;
    return states.has("trained")
      ? rated(item.row ? span(item.row.lr, item.row.texts[0]) : item.lr, data.scales.lr, "", moving(item, "lr"))
      : off(states);
  },
  wd: (item) => {
    const states = item.row ? new Set([item.row.state]) : item.states;
    return states.has("trained")
      ? rated(item.row ? span(item.row.wd, item.row.texts[1]) : item.wd, data.scales.decay, "wd", moving(item, "wd"))
      : "";
  },
  group: (item) => (item.row ? (item.row.group ? isolated(item.row.group) : "") : tensors(item.count)),
};
const drawRow = (item, at) => {
  const tr = make("tr", { id: `row-${at}`, "aria-rowindex": at + 2 });
  if (view.as === "tree") {
    tr.setAttribute("aria-level", item.level);
    tr.setAttribute("aria-posinset", item.at + 1);
    tr.setAttribute("aria-setsize", item.up.children.length);
  }
  if (item.modules) tr.setAttribute("aria-expanded", isOpen(item));
  tr.classList.toggle("module", Boolean(item.modules));
  tr.classList.toggle("active", at === active);
  tr.classList.toggle("chosen", Boolean(item.row && item.row.name === view.row));
  for (const column of columns) tr.append(make("td", { class: column }, cell[column.split(" ")[0]](item)));
  return tr;
};
const space = (height) => {
  const seen = [...grid.querySelectorAll("thead th")].filter((th) => th.offsetWidth); // narrow windows hide some
  const td = make("td", { colspan: seen.length });
  td.style.height = `${height}px`;
  return make("tr", { class: "space", "aria-hidden": "true" }, td);
};
const numberOf = (tr) => Number(tr.id.slice(4));
const SPARE = 16; // rows drawn above and below those in sight
let first = 0;
let last = 0;
const draw = (scrolled) => {
  const height = rowHeight();
  const sight = Math.ceil(innerHeight / height);
  const top = Math.max(
    0,
    Math.min(items.length - sight, Math.floor(-body.getBoundingClientRect().top / height)),
  );
  if (scrolled && top >= first && Math.min(items.length, top + sight) <= last) return;
  const [above, below] = scrolled ? [first, last] : [0, 0];
  first = whole ? 0 : Math.max(0, top - SPARE);
  last = whole ? items.length : Math.min(items.length, top + sight + SPARE);
  const between = (from, to) =>
    items.slice(from, Math.max(from, to)).map((item, at) => drawRow(item, from + at));
  if (above < last && below > first) {
    // Rows that stay in sight stay as they are: to lay them out again takes long.
    const gone = [...body.rows].filter((tr) => !tr.id || numberOf(tr) < first || numberOf(tr) >= last);
    gone.forEach((tr) => tr.remove());
    body.prepend(...between(first, above));
    body.append(...between(below, last));
  } else body.replaceChildren(...between(first, last));
  if (first) body.prepend(space(first * height));
  if (last < items.length) body.append(space((items.length - last) * height));
  if (items.length) grid.setAttribute("aria-activedescendant", `row-${active}`);
};
let waiting = false;
const drawSoon = () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw(true);
  });
};
