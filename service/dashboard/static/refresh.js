"use strict";
// A page of something under way reads itself again every two seconds, while it is looked at. Only what
// changed is replaced, so a selection, an open detail or the focus elsewhere stays; the sentence in the
// live region is not replaced but rewritten, which is what makes a screen reader say it.
(() => {
  const INTERVAL_MS = 2000;
  const main = document.getElementById("main");
  const shown = new Map(); // id of a part -> its markup as the server sent it
  let timer = 0;
  let busy = false;

  const parts = (root) => [...(root.getElementById("parts")?.children ?? [])];

  function remember(root) {
    shown.clear();
    for (const part of parts(root)) shown.set(part.id, part.innerHTML);
  }

  function openDetails(part) {
    return [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
  }

  function focusKey(part) {
    const active = document.activeElement;
    if (!active || !part.contains(active)) return null;
    const kind = active.tagName.toLowerCase();
    const index = [...part.querySelectorAll(kind)].indexOf(active);
    return { kind, index };
  }

  function replace(current, fresh) {
    const open = openDetails(current);
    const focus = focusKey(current);
    const scrolled = [...current.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    current.replaceChildren(...fresh.childNodes);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    current.querySelectorAll(".scroll").forEach((one, index) => { one.scrollLeft = scrolled[index] ?? 0; });
    if (focus) current.querySelectorAll(focus.kind)[focus.index]?.focus({ preventScroll: true });
  }

  function apply(page) {
    const fresh = parts(page);
    const markup = new Map(fresh.map((part) => [part.id, part.innerHTML]));
    const sameParts = fresh.map((part) => part.id).join() === parts(document).map((part) => part.id).join();
    if (sameParts) {
      for (const part of fresh) {
        if (shown.get(part.id) !== markup.get(part.id)) replace(document.getElementById(part.id), part);
      }
    } else {
      replace(document.getElementById("parts"), page.getElementById("parts"));
    }
    shown.clear();
    for (const [id, text] of markup) shown.set(id, text);
    say(page.getElementById("sentence")?.textContent);
    document.title = page.title;
    main.dataset.live = page.getElementById("main").dataset.live;
  }

  function say(words) {
    const sentence = document.getElementById("sentence");
    if (sentence && words && sentence.textContent !== words) sentence.textContent = words;
  }

  async function refresh() {
    timer = 0;
    if (busy || document.hidden) return;
    busy = true;
    try {
      const response = await fetch(location.href.split("#")[0], { cache: "no-store" });
      if (response.redirected) return location.reload(); // signed out meanwhile
      if (response.ok) apply(new DOMParser().parseFromString(await response.text(), "text/html"));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      say("The service does not answer. Trying again.");
    } finally {
      busy = false;
      schedule();
    }
  }

  function schedule() {
    if (!timer && !document.hidden && main.dataset.live === "true") timer = setTimeout(refresh, INTERVAL_MS);
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    timer = 0;
    if (!document.hidden && main.dataset.live === "true") refresh();
  });
  remember(document);
  schedule();
})();
