"use strict";
(() => {
  const graphs = JSON.parse(document.getElementById("data").textContent);
  const stage = document.getElementById("stage");
  const panel = document.getElementById("panel");
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  const customs = document.getElementById("customs");
  const path = document.getElementById("path");
  const drawn = [...document.querySelectorAll("svg.graph")];
  const views = drawn.map((svg) => ({
    x: 0, y: 0, scale: 0, width: +svg.dataset.width, height: +svg.dataset.height,
  }));
  let shown = 0;
  let found = [];
  let at = -1;

  // ---- what is seen: `scale` pixels of the screen for one of the drawing ----------------------

  function draw() {
    const view = views[shown];
    const w = stage.clientWidth / view.scale;
    const h = stage.clientHeight / view.scale;
    drawn[shown].setAttribute("viewBox", `${view.x} ${view.y} ${w} ${h}`);
  }

  function whole() {
    const view = views[shown];
    const margin = 1.04;
    view.scale = Math.min(
      stage.clientWidth / (view.width * margin), stage.clientHeight / (view.height * margin), 1.4);
    view.x = (view.width - stage.clientWidth / view.scale) / 2;
    view.y = (view.height - stage.clientHeight / view.scale) / 2;
    draw();
  }

  function start() { // readable, at the top: a long network is scrolled
    const view = views[shown];
    view.scale = Math.min(1, Math.max(0.45, stage.clientWidth / (view.width * 1.04)));
    if (view.height * view.scale < stage.clientHeight) { whole(); return; }
    view.x = (view.width - stage.clientWidth / view.scale) / 2;
    view.y = -20;
    draw();
  }

  function zoom(factor, px = stage.clientWidth / 2, py = stage.clientHeight / 2) {
    const view = views[shown];
    const next = Math.min(4, Math.max(0.005, view.scale * factor));
    view.x += px / view.scale - px / next;
    view.y += py / view.scale - py / next;
    view.scale = next;
    draw();
  }

  function centre(box) {
    const [, x, y] = /translate\((-?[\d.]+) (-?[\d.]+)\)/.exec(box.getAttribute("transform"));
    const rect = box.querySelector("rect");
    const view = views[shown];
    view.scale = Math.max(view.scale, 0.6);
    view.x = +x + rect.width.baseVal.value / 2 - stage.clientWidth / view.scale / 2;
    view.y = +y + rect.height.baseVal.value / 2 - stage.clientHeight / view.scale / 2;
    draw();
  }

  // ---- which graph ----------------------------------------------------------------------------

  function open(number) {
    close();
    drawn[shown].classList.remove("shown");
    shown = number;
    drawn[shown].classList.add("shown");
    path.replaceChildren();
    for (let g = number; g >= 0; g = graphs[g].parent) {
      const part = document.createElement(g === number ? "span" : "button");
      part.textContent = graphs[g].title;
      if (g !== number) part.addEventListener("click", () => open(g));
      path.prepend(part, g === number ? "" : " › ");
    }
    const special = [...drawn[shown].querySelectorAll(".box.custom")];
    customs.hidden = special.length === 0;
    customs.textContent = `${special.length} custom`;
    customs.onclick = () => { search.value = ""; look(); found = special; next(1); };
    if (views[shown].scale) draw(); else start();
    look();
  }

  // ---- one layer ------------------------------------------------------------------------------

  function close() {
    panel.hidden = true;
    drawn[shown].querySelectorAll(".chosen, .lit")
      .forEach((one) => one.classList.remove("chosen", "lit"));
    draw_if_ready();
  }

  function draw_if_ready() { if (views[shown].scale) draw(); }

  function element(tag, text) {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  }

  function table(title, rows) {
    if (!rows.length) return [];
    const made = document.createElement("table");
    for (const [label, value] of rows) {
      const row = made.insertRow();
      row.append(element("th", label), element("td", value));
    }
    return [element("h3", title), made];
  }

  function choose(box) {
    close();
    const index = +box.dataset.box;
    const facts = graphs[shown].boxes[index];
    box.classList.add("chosen");
    drawn[shown].querySelectorAll(`.edge[data-from="${index}"], .edge[data-to="${index}"], ` +
      `.label[data-from="${index}"]`)
      .forEach((edge) => edge.classList.add("lit"));
    panel.className = facts.role;
    panel.replaceChildren(
      element("h2", facts.name), element("p", facts.kind),
      ...facts.inside.map(([title, number]) => {
        const button = element("button", `Open ${title}`);
        button.addEventListener("click", () => open(number));
        return button;
      }),
      ...table("Parameters", facts.rows),
      ...table("Inputs", facts.inputs), ...table("Outputs", facts.outputs));
    panel.hidden = false;
    draw();
  }

  // ---- search ---------------------------------------------------------------------------------

  function look() {
    const words = search.value.trim().toLowerCase();
    const svg = drawn[shown];
    svg.classList.toggle("searching", words !== "");
    found = [];
    at = -1;
    svg.querySelectorAll(".box").forEach((box) => {
      const facts = graphs[shown].boxes[+box.dataset.box];
      const text = [facts.name, facts.kind, facts.role, ...facts.inputs.flat(), ...facts.outputs.flat()]
        .join(" ").toLowerCase();
      const hit = words !== "" && text.includes(words);
      box.classList.toggle("found", hit);
      if (hit) found.push(box);
    });
    count.textContent = words === "" ? `${graphs[shown].boxes.length} boxes` : `${found.length} found`;
  }

  function next(step) {
    if (!found.length) return;
    at = (at + step + found.length) % found.length;
    choose(found[at]);
    centre(found[at]);
    count.textContent = `${at + 1} of ${found.length} found`;
  }

  // ---- mouse, wheel, keys ---------------------------------------------------------------------

  let held = null;
  stage.addEventListener("pointerdown", (event) => {
    held = { x: event.clientX, y: event.clientY, moved: false };
  });
  window.addEventListener("pointermove", (event) => {
    if (!held) return;
    const dx = event.clientX - held.x;
    const dy = event.clientY - held.y;
    if (!held.moved && Math.hypot(dx, dy) < 4) return;
    const view = views[shown];
    view.x -= dx / view.scale;
    view.y -= dy / view.scale;
    held = { x: event.clientX, y: event.clientY, moved: true };
    stage.classList.add("moving");
    draw();
  });
  window.addEventListener("pointerup", (event) => {
    const was = held;
    held = null;
    stage.classList.remove("moving");
    if (!was || was.moved || !stage.contains(event.target)) return;
    const box = event.target.closest(".box");
    if (box) choose(box); else close();
  });
  stage.addEventListener("dblclick", (event) => {
    const box = event.target.closest(".box.opens");
    if (box) open(graphs[shown].boxes[+box.dataset.box].inside[0][1]);
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const place = stage.getBoundingClientRect();
    const view = views[shown];
    if (event.ctrlKey || event.metaKey) {
      zoom(Math.exp(-event.deltaY / 200), event.clientX - place.left, event.clientY - place.top);
    } else {
      view.x += event.deltaX / view.scale;
      view.y += event.deltaY / view.scale;
      draw();
    }
  }, { passive: false });
  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") next(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") { search.value = ""; look(); search.blur(); close(); }
    event.stopPropagation();
  });
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const view = views[shown];
    const step = 80 / view.scale;
    const keys = {
      "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "0": whole,
      "/": () => search.focus(), "Escape": close,
      "u": () => { if (graphs[shown].parent >= 0) open(graphs[shown].parent); },
      "ArrowLeft": () => { view.x -= step; draw(); }, "ArrowRight": () => { view.x += step; draw(); },
      "ArrowUp": () => { view.y -= step; draw(); }, "ArrowDown": () => { view.y += step; draw(); },
      "Enter": () => {
        const box = document.activeElement.closest(".box");
        if (box) choose(box);
      },
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  stage.addEventListener("focusin", (event) => {
    const box = event.target.closest(".box");
    if (box && box.matches(":focus-visible")) centre(box);
  });
  window.addEventListener("resize", draw_if_ready);

  drawn[0].classList.add("shown");
  open(0);
})();
