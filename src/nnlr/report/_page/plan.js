// The explanation of a row, and what a reader does.

const panel = byId("explain");
const explain = (row, focus) => {
  const facts = make("dl", {});
  const entry = (title, text, kind) => {
    const box = make("div", kind ? { class: kind } : {}, make("dt", {}, title), make("dd", {}, text));
    facts.append(box);
    return box;
  };
  entry(
    "shape",
    `${row.shape.join(" \u00d7 ") || "scalar"}, ${row.numel.toLocaleString("en")} element${row.numel === 1 ? "" : "s"}`,
  );
  entry("role", `${row.role} (by ${row.basis})`);
  if (row.aliases.length) entry("tied to", row.aliases.join(", "));
  if (row.layer !== undefined)
    entry("layer", `${row.layer} of ${row.last}${row.tower ? ` of ${row.tower}` : ""}`);
  let box = null;
  for (const at of row.why) {
    const [title, text] = data.lines[at];
    if (title && !title.startsWith("x ")) box = entry(title, text, / = /.test(text) ? "number" : "");
    else
      box.append(
        make("dd", { class: "step" }, make("b", {}, title.replace("x ", "\u00d7 ")), make("span", {}, text)),
      );
  }
  const close = make(
    "button",
    { type: "button", class: "close", "aria-label": "Close the explanation" },
    "\u00d7",
  );
  close.addEventListener("click", unexplain);
  panel.replaceChildren(
    close,
    make("h2", { id: "explain-name" }, isolated(row.name)),
    facts,
    make("p", { class: "keys" }, "Arrow keys move through the rows, Esc closes."),
  );
  panel.hidden = false;
  document.body.classList.add("explaining");
  view.row = row.name;
  writeAddress();
  draw();
  if (focus) panel.focus();
};
const unexplain = () => {
  panel.hidden = true;
  document.body.classList.remove("explaining");
  view.row = "";
  writeAddress();
  draw();
  grid.focus({ preventScroll: true });
};

// What keys, clicks and fields do.
const update = () => {
  choose();
  writeAddress();
};
const toggle = (node, open) => {
  toggled.set(node.path, open);
  arrange();
};
const act = (item, focus) => (item.modules ? toggle(item, !isOpen(item)) : explain(item.row, focus));
const goTo = (at) => {
  active = Math.max(0, Math.min(items.length - 1, at));
  const [height, head] = [rowHeight(), 40];
  const top = body.getBoundingClientRect().top + active * height;
  const sheet = panel.getBoundingClientRect(); // at the foot of narrow windows
  const foot = sheet.width >= innerWidth && sheet.height ? sheet.top : innerHeight;
  if (top < head) scrollBy(0, top - head);
  else if (top + height > foot) scrollBy(0, top + height - foot);
  if (!panel.hidden && items[active].row) explain(items[active].row);
  else draw();
};
const toggleAll = (open) => {
  const walk = (node) =>
    node.children.forEach((child) => {
      if (child.modules) {
        toggled.set(child.path, open);
        walk(child);
      }
    });
  walk(root);
  arrange();
};
const page = () => Math.max(1, Math.floor(innerHeight / rowHeight()) - 3);
const moves = {
  ArrowDown: () => goTo(active + 1),
  ArrowUp: () => goTo(active - 1),
  Home: () => goTo(0),
  End: () => goTo(items.length - 1),
  PageDown: () => goTo(active + page()),
  PageUp: () => goTo(active - page()),
  Enter: () => act(items[active], true),
  " ": () => act(items[active], true),
  ArrowRight: () => {
    const item = items[active];
    if (!item.modules) return;
    if (isOpen(item)) goTo(active + 1);
    else toggle(item, true);
  },
  ArrowLeft: () => {
    const item = items[active];
    if (item.modules && isOpen(item)) toggle(item, false);
    else if (item.up && item.up !== root) goTo(items.indexOf(item.up));
  },
};
grid.addEventListener("keydown", (event) => {
  if (event.target !== grid || event.ctrlKey || event.metaKey || event.altKey || !moves[event.key]) return;
  event.preventDefault();
  moves[event.key]();
});
body.addEventListener("click", (event) => {
  const tr = event.target.closest("tr[id]");
  if (!tr || String(getSelection())) return;
  active = numberOf(tr);
  grid.focus({ preventScroll: true });
  act(items[active], false);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !panel.hidden) unexplain();
});
const sortBy = (key) => {
  const first = ["lr", "wd", "numel"].includes(key) ? `-${key}` : key;
  const second = first === key ? `-${key}` : key;
  const next = { [first]: second, [second]: "" };
  view.sort = (view.as === "table" ? next[view.sort] : undefined) ?? first;
  view.as = "table";
  update();
};
for (const button of grid.querySelectorAll("[data-sort]")) {
  button.tabIndex = 0;
  button.addEventListener("click", () => sortBy(button.dataset.sort));
}
for (const as of ["tree", "table"])
  byId(`as-${as}`).addEventListener("click", () => {
    view.as = as;
    if (as === "tree") view.sort = "";
    update();
  });
byId("expand").addEventListener("click", () => toggleAll(true));
byId("collapse").addEventListener("click", () => toggleAll(false));
const filterBy = (by) => {
  view.by = by;
  for (const select of selects) select.value = by[select.dataset.by] || "";
  update();
};
const clear = () => {
  view.q = byId("search").value = "";
  filterBy({});
  byId("search").focus();
};
for (const id of ["reset", "reset-too"]) byId(id).addEventListener("click", clear);
const tools = document.querySelector(".tools");
tools.hidden = false; // without scripts they would do nothing
tools.addEventListener("submit", (event) => event.preventDefault());
let typing = 0;
byId("search").addEventListener("input", (event) => {
  view.q = event.target.value.trim();
  clearTimeout(typing);
  if (rows.length < 5000) update();
  else typing = setTimeout(update, 120); // between key strokes
});
for (const select of selects)
  select.addEventListener("change", () => {
    if (select.value) view.by[select.dataset.by] = select.value;
    else delete view.by[select.dataset.by];
    update();
  });
document.addEventListener("click", (event) => {
  const group = event.target.closest("[data-group]"),
    bar = event.target.closest("g[data-layer]");
  if (group) {
    filterBy({ group: group.dataset.group });
    byId("parameters").scrollIntoView();
  }
  if (bar && bar.dataset.layer) {
    const by = { layer: bar.dataset.layer };
    if (byId("by-tower")) by.tower = bar.dataset.tower;
    filterBy(by);
    byId("parameters").scrollIntoView();
  }
});
addEventListener("scroll", drawSoon, { passive: true });
addEventListener("resize", () => draw());
// Opens the modules that a row is in.
const reveal = (row) => {
  for (
    let node = root, path = "";
    node;
    node = node.children.find((child) => child.modules && `${row.name}.`.startsWith(`${child.path}.`))
  ) {
    path = node.path;
    if (path) toggled.set(path, true);
  }
  arrange();
};
const start = () => {
  const asked = readAddress();
  choose();
  const row = rows.find((each) => each.name === view.row);
  if (row && view.as === "tree") reveal(row);
  if (asked) byId("parameters").scrollIntoView();
  if (!row) return;
  explain(row);
  const at = items.findIndex((item) => item.row === row);
  if (at >= 0) goTo(at);
};
addEventListener("hashchange", () => {
  if (!location.hash || location.hash.includes("=")) start();
});
let unprinted;
addEventListener("beforeprint", () => {
  unprinted = new Map(toggled);
  whole = chosen.length <= 5000;
  if (whole && view.as === "tree") toggleAll(true);
  else draw();
});
addEventListener("afterprint", () => {
  whole = false;
  toggled.clear();
  unprinted.forEach((state, path) => toggled.set(path, state));
  arrange();
});
start();
