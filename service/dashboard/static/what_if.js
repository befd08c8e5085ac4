"use strict";
// Weights that keep their sum: what is typed or slid stays, the others share the rest as they did where one began.
// The numbers beside the sliders move at once; what is predicted is asked of the service, one question at a time.
(() => {
  const form = document.getElementById("what-if");
  const said = document.getElementById("said");
  const answer = document.getElementById("answer");
  const rows = [...form.querySelectorAll("tr[data-base]")].map((row) => {
    const slider = document.createElement("input");
    slider.type = "range";
    slider.max = "100";
    slider.step = "0.01";
    slider.setAttribute("aria-label", `${row.cells[0].textContent.trim()}, percent`);
    row.querySelector(".slide").append(slider);
    return {
      slider,
      field: row.querySelector("input[name]"),
      weight: row.querySelector(".weight"),
      epochs: row.querySelector(".epochs"),
      base: Number(row.dataset.base),
      per: row.dataset.per ? Number(row.dataset.per) : NaN,
      cap: row.dataset.cap ? Number(row.dataset.cap) : Infinity,
    };
  });
  const typed = (row) => (row.field.value.trim() === "" ? NaN : Number(row.field.value.replace("%", "")) / 100);
  const sum = (numbers) => numbers.reduce((one, two) => one + two, 0);

  function move(moved) {
    const kept = rows.filter((row) => !Number.isNaN(typed(row)));
    const free = rows.filter((row) => Number.isNaN(typed(row)));
    const rest = Math.max(0, 1 - sum(kept.map(typed)));
    const base = sum(free.map((row) => row.base));
    for (const row of rows) {
      const own = typed(row);
      const weight = Number.isNaN(own) ? (base ? (rest * row.base) / base : rest / free.length) : own;
      if (row !== moved) row.slider.value = String(100 * weight);
      row.weight.textContent = `${(100 * weight).toFixed(2)}%`;
      row.epochs.textContent = Number.isNaN(row.per) ? "–" : (weight * row.per).toFixed(2);
      row.epochs.classList.toggle("over", weight > row.cap * (1 + 1e-6));
    }
  }

  function slide(row) {
    const others = sum(rows.filter((other) => other !== row).map(typed).filter((own) => !Number.isNaN(own)));
    const most = Math.max(0, 100 * (1 - others));
    if (Number(row.slider.value) > most) row.slider.value = String(most);
    row.field.value = String(Math.min(Number(row.slider.value), Math.floor(100 * most) / 100));
  }

  let asking = false;
  let again = false;
  async function ask() {
    if (asking) { again = true; return; }
    asking = true;
    again = false;
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
    history.replaceState(null, "", `?${query}`);
    try {
      const response = await fetch(`${form.dataset.answer}?${query}`, { cache: "no-store" });
      if (response.redirected) return location.reload(); // signed out meanwhile
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      const words = fresh.getElementById("said");
      if (!response.ok || !words) said.textContent = "The service did not answer that. Change a weight to ask again.";
      else {
        said.replaceChildren(...words.childNodes);
        words.remove();
        answer.replaceChildren(...fresh.body.childNodes);
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      said.textContent = "The service does not answer. Change a weight to ask again.";
    } finally {
      asking = false;
      if (again) ask();
    }
  }

  form.addEventListener("input", (event) => {
    const row = rows.find(({ slider, field }) => slider === event.target || field === event.target);
    if (row && row.slider === event.target) slide(row);
    if (event.target.name === "start") return form.submit(); // other weights to share the rest by
    if (!row && event.target.type !== "checkbox") return;
    move(row);
    ask();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  move();
})();
