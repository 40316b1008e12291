"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const search = byId("search"),
    kind = byId("kind"),
    open = byId("open");
  if (!search) return; // no difference
  const sections = [...document.querySelectorAll("[data-kind]")];
  const lines = sections.map((section) =>
    [...section.querySelectorAll("tr[data-tensors]")].map((tr) => [tr, tr.textContent.toLowerCase()]),
  );
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    sections.forEach((section, at) => {
      let seen = 0;
      for (const [tr, text] of lines[at]) {
        tr.hidden =
          !words.every((word) => text.includes(word)) || (kind.value && kind.value !== section.dataset.kind);
        seen += tr.hidden ? 0 : Number(tr.dataset.tensors);
      }
      section.hidden = !seen;
      count += seen;
    });
    byId("count").textContent = `${count.toLocaleString("en")} parameter${count === 1 ? "" : "s"}`;
    byId("none").hidden = count > 0;
    const asked = new URLSearchParams();
    if (search.value) asked.set("q", search.value);
    if (kind.value) asked.set("kind", kind.value);
    const hash = asked.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  };
  const every = (state) =>
    document.querySelectorAll("details").forEach((details) => {
      details.open = state;
    });
  open.addEventListener("click", () => {
    const state = open.textContent === "Open all";
    every(state);
    open.textContent = state ? "Close all" : "Open all";
  });
  const read = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    search.value = asked.get("q") || "";
    kind.value = asked.get("kind") || "";
    apply();
  };
  search.form.hidden = false; // without scripts it would do nothing
  search.form.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", apply);
  kind.addEventListener("change", apply);
  addEventListener("hashchange", () => {
    if (!location.hash || location.hash.includes("=")) read();
  });
  addEventListener("beforeprint", () => every(true));
  read();
})();
