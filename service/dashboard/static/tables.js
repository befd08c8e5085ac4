"use strict";
// Tables sort by a click on a heading, are searched, show only what changes, and fold their sources. All of it is in
// the page without this; nothing is asked of the service.
(() => {
  const rowsOf = (table) => [...table.tBodies].flatMap((body) => [...body.rows]);
  const isSource = (row) => row.classList.contains("source");

  function key(row, column, kind) {
    const cell = row.cells[column];
    return kind === "number" ? Number(cell.dataset.value) : cell.textContent.trim();
  }

  function sort(heading) {
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const kind = heading.dataset.sort;
    const down = kind === "number" ? heading.getAttribute("aria-sort") !== "descending" : heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = (a, b) => {
      const one = key(a, column, kind);
      const two = key(b, column, kind);
      const found = kind === "number" ? one - two : one.localeCompare(two);
      return down ? -found : found;
    };
    for (const body of table.tBodies) {
      const rows = [...body.rows];
      body.append(...rows.filter(isSource), ...rows.filter((row) => !isSource(row)).sort(order));
    }
    table.append(...[...table.tBodies].sort((a, b) => order(a.rows[0], b.rows[0])));
  }

  function show(form) {
    const table = document.getElementById(form.dataset.for);
    const wanted = form.elements.find.value.trim().toLowerCase();
    const changed = form.elements.changed?.checked;
    for (const body of table.tBodies) {
      let shown = 0;
      const folded = body.classList.contains("folded") && !wanted;
      for (const row of body.rows) {
        if (isSource(row)) continue;
        const fits = row.cells[0].textContent.toLowerCase().includes(wanted) && !(changed && row.classList.contains("same"));
        shown += fits;
        row.hidden = !fits || folded;
      }
      for (const row of body.rows) if (isSource(row)) row.hidden = shown === 0;
    }
  }

  function fold(body, folded) {
    const button = body.querySelector("tr.source button");
    if (!button) return;
    body.classList.toggle("folded", folded);
    button.setAttribute("aria-expanded", String(!folded));
  }

  function prepare(form) {
    const table = document.getElementById(form.dataset.for);
    for (const heading of table.querySelectorAll("th[data-sort]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet sort";
      button.append(...heading.childNodes);
      heading.append(button);
    }
    for (const body of table.tBodies) {
      const name = body.querySelector("tr.source th");
      if (!name) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet fold";
      button.append(...name.childNodes);
      name.append(button);
      fold(body, table.hasAttribute("data-folded"));
    }
    form.hidden = false;
    show(form);
  }

  function prepareAll() {
    for (const form of document.querySelectorAll("form.filters[hidden]")) prepare(form);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const form = document.querySelector("form.filters");
    if (button.matches(".sort")) sort(button.parentElement);
    else if (button.matches(".fold")) fold(button.closest("tbody"), button.getAttribute("aria-expanded") === "true");
    else if (button.dataset.fold) {
      for (const body of document.getElementById(form.dataset.for).tBodies) fold(body, button.dataset.fold === "all");
    } else return;
    if (form) show(form);
  });
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form.filters");
    if (form) show(form);
  });
  document.addEventListener("submit", (event) => {
    if (event.target.matches("form.filters")) event.preventDefault();
  });
  new MutationObserver(prepareAll).observe(document.getElementById("main"), { childList: true, subtree: true });
  prepareAll();
})();
