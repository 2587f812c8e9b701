"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const graphs = data.graphs.map((graph) => ({
    ...graph,
    boxes: graph.boxes.map(([box, x, y, h]) => ({ ...data.boxes[box], x, y, h })),
  }));
  const stage = document.getElementById("stage");
  const panel = document.getElementById("panel");
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  const customs = document.getElementById("customs");
  const path = document.getElementById("path");
  const map = document.getElementById("map");
  const groups = document.getElementById("groups");
  const templates = [null, ...stage.querySelectorAll("template")];
  const drawn = [document.querySelector("svg.graph")];
  const views = [];
  const places = unfolding(graphs, templates);
  let shown = 0;

  function prepare(number) { // a graph is drawn when it is first opened
    if (!drawn[number]) {
      drawn[number] = templates[number].content.firstElementChild;
      stage.insertBefore(drawn[number], map);
    }
    const svg = drawn[number];
    views[number] ??= {
      x: 0, y: 0, scale: 0, width: +svg.dataset.width, height: +svg.dataset.height,
    };
  }
  let matches = [];
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

  // ---- the whole of a long graph, in columns: colours tell families, a click goes there --------

  const WIDTH = 196;
  let plan = null;

  function overview() {
    whole();
    const view = views[shown];
    if (view.scale > 0.25) return;
    const w = stage.clientWidth;
    const h = stage.clientHeight;
    let columns = 1;
    let scale = 0;
    for (let k = 1; k <= 80; k += 1) {
      const fits = Math.min((w - 20) / (k * (view.width + 80)), (h - 20) * k / view.height, 1);
      if (fits > scale) { scale = fits; columns = k; }
    }
    if (scale < view.scale * 1.3) return;
    const tall = (h - 20) / scale;
    plan = { scale, tall, step: (view.width + 80) * scale, columns };
    paint();
    map.hidden = false;
  }

  function paint() {
    const ratio = window.devicePixelRatio || 1;
    map.width = stage.clientWidth * ratio;
    map.height = stage.clientHeight * ratio;
    const pen = map.getContext("2d");
    pen.scale(ratio, ratio);
    const { scale, tall, step } = plan;
    const size = Math.min(13, 13 * scale * 1.6);
    pen.font = `${size}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    places.visible(drawn[shown]).forEach((box) => {
      const column = Math.floor(box.y / tall);
      const x = 10 + column * step + box.x * scale;
      const y = 10 + (box.y - column * tall) * scale;
      pen.fillStyle = getComputedStyle(box.box).getPropertyValue("--f") || "#64748b";
      pen.fillRect(x, y, WIDTH * scale, Math.max(2, box.h * scale));
      if (size < 5) return;
      pen.fillStyle = "#fff";
      pen.save();
      pen.beginPath();
      pen.rect(x, y, WIDTH * scale - 2, box.h * scale);
      pen.clip();
      pen.fillText(box.kind, x + 3, y + box.h * scale / 2);
      pen.restore();
    });
  }

  map.addEventListener("click", (event) => {
    const place = map.getBoundingClientRect();
    const { scale, tall, step } = plan;
    const column = Math.floor((event.clientX - place.left - 10) / step);
    const view = views[shown];
    const x = (event.clientX - place.left - 10 - column * step) / scale;
    const y = column * tall + (event.clientY - place.top - 10) / scale;
    map.hidden = true;
    view.scale = 0.8;
    view.x = x - stage.clientWidth / view.scale / 2;
    view.y = y - stage.clientHeight / view.scale / 2;
    draw();
  });

  function start() { // readable, at the top: a long network is scrolled
    const view = views[shown];
    view.scale = Math.min(1, Math.max(0.45, stage.clientWidth / (view.width * 1.04)));
    if (view.height * view.scale < stage.clientHeight) { whole(); return; }
    const [first] = graphs[shown].boxes;
    const wide = view.width > stage.clientWidth / view.scale;
    const middle = wide && first ? first.x + WIDTH / 2 : view.width / 2;
    view.x = middle - stage.clientWidth / view.scale / 2;
    view.y = -20;
    draw();
  }

  function saved(text, type, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(text instanceof Blob ? text : new Blob([text], { type }));
    link.download = `${document.title.replace(/\.[^.]*$/, "") || "model"}.${name}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function picture() { // the whole graph, with the style that it has here
    const copy = drawn[shown].cloneNode(true);
    const { width, height } = views[shown];
    copy.setAttribute("viewBox", `0 0 ${width} ${height}`);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("style", "position:static;display:block");
    copy.querySelectorAll(".chosen, .lit, .found")
      .forEach((one) => one.classList.remove("chosen", "lit", "found"));
    copy.classList.remove("searching");
    const style = document.createElementNS("http://www.w3.org/2000/svg", "style");
    style.textContent = document.querySelector("style").textContent;
    copy.prepend(style);
    return new XMLSerializer().serializeToString(copy);
  }

  document.getElementById("svg").addEventListener("click", () => {
    saved(picture(), "image/svg+xml", "svg");
  });
  document.getElementById("png").addEventListener("click", () => {
    const { width, height } = views[shown];
    const scale = Math.min(2, 8000 / width, 8000 / height);
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = Math.max(1, width * scale);
      canvas.height = Math.max(1, height * scale);
      const pen = canvas.getContext("2d");
      pen.fillStyle = getComputedStyle(document.body).backgroundColor;
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => saved(blob, "image/png", "png"));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(picture())}`;
  });

  function zoom(factor, px = stage.clientWidth / 2, py = stage.clientHeight / 2) {
    const view = views[shown];
    const next = Math.min(4, Math.max(0.005, view.scale * factor));
    view.x += px / view.scale - px / next;
    view.y += py / view.scale - py / next;
    view.scale = next;
    draw();
  }

  function placeOf(element, down) { // its middle, or with `down` 0 its top, in what is shown
    const [place, own] = [stage.getBoundingClientRect(), element.getBoundingClientRect()];
    const view = views[shown];
    return [
      view.x + (own.left + own.width / 2 - place.left) / view.scale,
      view.y + (own.top + own.height * down - place.top) / view.scale,
    ];
  }

  function centre(box) {
    const view = views[shown];
    const [x, y] = placeOf(box.querySelector("rect"), 0.5);
    view.scale = Math.max(view.scale, 0.6);
    view.x = x - stage.clientWidth / view.scale / 2;
    view.y = y - stage.clientHeight / view.scale / 2;
    draw();
  }

  // ---- a scope, opened in its place -----------------------------------------------------------

  function rearrange(element, change) { // what changes keeps its place on the screen
    close();
    const view = views[shown];
    const [x, y] = placeOf(element.querySelector("rect"), 0);
    const changed = change(element);
    [view.width, view.height] = places.arrange(drawn[shown]);
    draw();
    const [u, v] = placeOf(changed.querySelector("rect"), 0);
    view.x += u - x;
    view.y += v - y;
    draw();
    look();
  }

  const unfold = (box) => rearrange(box, places.unfold);
  const fold = (frame) => rearrange(frame, places.fold);

  function toggle() { // the chosen box, or the frame around it
    const box = drawn[shown].querySelector(".box.chosen") || document.activeElement.closest(".box");
    if (box && places.canUnfold(box)) { unfold(box); return; }
    const frame = box && box.closest(".unfolded");
    if (frame) fold(frame);
  }

  // ---- which graph ----------------------------------------------------------------------------

  function open(number) {
    close();
    drawn[shown].classList.remove("shown");
    prepare(number);
    shown = number;
    const other = graphs[number].other;
    groups.hidden = other === undefined;
    groups.setAttribute("aria-pressed", String(number !== 0 && other === 0));
    groups.onclick = () => open(other);
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
    customs.onclick = () => { search.value = ""; look(); matches = special; next(1); };
    if (views[shown].scale) draw(); else start();
    look();
  }

  // ---- one layer ------------------------------------------------------------------------------

  function close() {
    panel.hidden = true;
    map.hidden = true;
    drawn[shown].querySelectorAll(".chosen, .lit")
      .forEach((one) => one.classList.remove("chosen", "lit"));
    draw_if_ready();
  }

  function draw_if_ready() { if (views[shown].scale) draw(); }

  function element(tag, text) {
    const node = document.createElement(tag);
    node.textContent = text;
    return node;
  }

  function histogram(bins) {
    const chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    chart.setAttribute("class", "histogram");
    chart.setAttribute("viewBox", `0 0 ${bins.length * 4} 60`);
    chart.setAttribute("preserveAspectRatio", "none");
    const most = Math.max(...bins);
    bins.forEach((count, index) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const tall = count && Math.max(1, 60 * count / most);
      for (const [key, value] of [["x", index * 4], ["y", 60 - tall], ["width", 3.4], ["height", tall]]) {
        bar.setAttribute(key, value);
      }
      chart.append(bar);
    });
    return chart;
  }

  function weights(every) {
    return (every || []).flatMap((one) => [
      element("h3", one.name), element("p", one.brief),
      ...(one.bins.length ? [histogram(one.bins)] : []),
      ...table("", one.numbers),
    ]);
  }

  function link(name) { // can be shared
    try {
      history.replaceState(null, "", name === null ? " " : `#${encodeURIComponent(name)}`);
    } catch { /* a page inside of a notebook has no address */ }
  }

  function follow() {
    const name = decodeURIComponent(location.hash.slice(1));
    if (!name) return;
    const at = graphs.findIndex((graph) => graph.boxes.some((box) => box.name === name));
    if (at < 0) return;
    if (at !== shown) open(at);
    const index = graphs[at].boxes.findIndex((box) => box.name === name && box.role !== "input");
    const box = drawn[at].querySelector(`:scope > .box[data-box="${Math.max(0, index)}"]`);
    choose(box);
    centre(box);
  }

  function table(title, rows) {
    if (!rows.length) return [];
    const body = document.createElement("table");
    for (const [label, value] of rows) {
      const row = body.insertRow();
      row.append(element("th", label), element("td", value));
    }
    return title ? [element("h3", title), body] : [body];
  }

  function unfolder(box) {
    const button = element("button", "Unfold here");
    button.addEventListener("click", () => unfold(box));
    return button;
  }

  function choose(box) {
    close();
    const index = +box.dataset.box;
    const facts = places.facts(box);
    box.classList.add("chosen");
    places.home(box).querySelectorAll(`:scope > .edge[data-from="${index}"], ` +
      `:scope > .edge[data-to="${index}"], :scope > .label[data-from="${index}"]`)
      .forEach((edge) => edge.classList.add("lit"));
    panel.className = facts.role;
    panel.replaceChildren(
      element("h2", facts.name), element("p", facts.kind),
      ...(places.canUnfold(box) ? [unfolder(box)] : []),
      ...(facts.inside || []).map(([title, number]) => {
        const button = element("button", `Open ${title}`);
        button.addEventListener("click", () => open(number));
        return button;
      }),
      ...table("Parameters", facts.rows),
      ...table("Inputs", facts.inputs), ...table("Outputs", facts.outputs),
      ...weights(facts.weights));
    panel.hidden = false;
    link(facts.name);
    draw();
  }

  // ---- search ---------------------------------------------------------------------------------

  function look() {
    const words = search.value.trim().toLowerCase();
    const svg = drawn[shown];
    svg.classList.toggle("searching", words !== "");
    matches = [];
    at = -1;
    svg.querySelectorAll(".box:not(.open)").forEach((box) => {
      const facts = places.facts(box);
      const text = [facts.name, facts.kind, facts.role, ...facts.inputs.flat(), ...facts.outputs.flat()]
        .join(" ").toLowerCase();
      const hit = words !== "" && text.includes(words);
      box.classList.toggle("found", hit);
      if (hit) matches.push(box);
    });
    count.textContent = words === "" ? `${svg.querySelectorAll(".box:not(.open)").length} boxes` : `${matches.length} found`;
  }

  function next(step) {
    if (!matches.length) return;
    at = (at + step + matches.length) % matches.length;
    choose(matches[at]);
    centre(matches[at]);
    count.textContent = `${at + 1} of ${matches.length} found`;
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
    const sign = event.target.closest(".fold");
    if (sign) { fold(sign.closest(".unfolded")); return; }
    const box = event.target.closest(".box");
    if (box) choose(box); else close();
  });
  stage.addEventListener("dblclick", (event) => {
    const box = event.target.closest(".box.opens");
    if (!box) return;
    if (places.canUnfold(box)) unfold(box); else open(places.facts(box).inside[0][1]);
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
      "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "0": overview,
      "/": () => search.focus(), "Escape": close,
      "x": toggle,
      "g": () => { if (!groups.hidden) groups.click(); },
      "u": () => { if (graphs[shown].parent >= 0) open(graphs[shown].parent); },
      "ArrowLeft": () => { view.x -= step; draw(); }, "ArrowRight": () => { view.x += step; draw(); },
      "ArrowUp": () => { view.y -= step; draw(); }, "ArrowDown": () => { view.y += step; draw(); },
      "Enter": () => {
        const sign = document.activeElement.closest(".fold");
        if (sign) { fold(sign.closest(".unfolded")); return; }
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

  prepare(0);
  drawn[0].classList.add("shown");
  open(0);
  follow();
  window.addEventListener("hashchange", follow);
})();
