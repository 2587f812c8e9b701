"use strict";
// Opens the graph inside of a box in its place: what lies beside and below moves away.
const unfolding = (graphs, templates) => {
  const WIDTH = 196; // of a box
  const LINE = 14; // of a label
  const HEAD = 26; // of a frame
  const MARGIN = 14;
  const SVG = "http://www.w3.org/2000/svg";

  const made = (tag, attributes) => {
    const element = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const home = (element) => element.closest("svg[data-graph]");
  const facts = (box) => graphs[+home(box).dataset.graph].boxes[+box.dataset.box];
  const canUnfold = (box) => {
    const { inside } = facts(box);
    return inside !== undefined && inside.length === 1;
  };

  // Where a place along one axis moves to: behind each place that grows by all of it.
  function mover(grown) {
    const each = [...grown.entries()];
    return (at) => each.reduce((sum, [place, more]) => {
      if (at > place + 0.5) return sum + more;
      return at >= place - 0.5 ? sum + more / 2 : sum;
    }, at);
  }

  // The points of an edge, as the page's own writer drew it.
  function pointsOf(path) {
    path.points ??= [...path.getAttribute("d").matchAll(/([MVC])([^MVC]*)/g)]
      .reduce((points, [, letter, text]) => {
        const numbers = text.trim().split(/\s+/).map(Number);
        points.push(letter === "V" ? [points.at(-1)[0], numbers[0]] : numbers.slice(-2));
        return points;
      }, []);
    return path.points;
  }

  function drawnThrough(points) {
    let [[x, y]] = points;
    let text = `M${x} ${y}`;
    for (const [u, v] of points.slice(1)) {
      const middle = (y + v) / 2;
      text += x === u ? `V${v}` : `C${x} ${middle} ${u} ${middle} ${u} ${v}`;
      [x, y] = [u, v];
    }
    return text;
  }

  // Lays a drawing out anew, inner ones first; its width and height.
  function arrange(svg) {
    const { boxes } = graphs[+svg.dataset.graph];
    const columns = new Map();
    const rows = new Map();
    const sizes = new Map();
    const grow = (axis, at, more) => axis.set(at, Math.max(axis.get(at) || 0, more));
    for (const frame of svg.querySelectorAll(":scope > .unfolded")) {
      const inner = frame.querySelector(":scope > svg");
      const [width, height] = arrange(inner);
      for (const [key, value] of Object.entries({ width, height, x: MARGIN, y: HEAD })) {
        inner.setAttribute(key, value);
      }
      inner.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const size = [Math.max(WIDTH, width + 2 * MARGIN), height + HEAD + MARGIN];
      const box = boxes[+frame.dataset.box];
      sizes.set(+frame.dataset.box, size);
      grow(columns, Math.round(box.x + WIDTH / 2), size[0] - WIDTH);
      grow(rows, Math.round(box.y + box.h / 2), size[1] - box.h);
    }
    const [toX, toY] = [mover(columns), mover(rows)];
    const middle = (index) => [toX(boxes[index].x + WIDTH / 2), toY(boxes[index].y + boxes[index].h / 2)];
    const half = (index) => (sizes.get(index)?.[1] ?? boxes[index].h) / 2;
    boxes.forEach((box, index) => {
      const [x, y] = middle(index);
      box.now = { x: x - WIDTH / 2, y: y - half(index), h: 2 * half(index) };
    });
    for (const box of svg.querySelectorAll(":scope > .box")) {
      const [x, y] = middle(+box.dataset.box);
      box.setAttribute("transform", `translate(${x - WIDTH / 2} ${y - boxes[+box.dataset.box].h / 2})`);
    }
    for (const frame of svg.querySelectorAll(":scope > .unfolded")) {
      const [x, y] = middle(+frame.dataset.box);
      const [width, height] = sizes.get(+frame.dataset.box);
      frame.setAttribute("transform", `translate(${x - width / 2} ${y - height / 2})`);
      frame.querySelector(":scope > .frame").setAttribute("width", width);
      frame.querySelector(":scope > .frame").setAttribute("height", height);
      frame.querySelector(":scope > .head").setAttribute("width", width);
      frame.querySelector(":scope > .fold").setAttribute("transform", `translate(${width - WIDTH} 0)`);
    }
    for (const edge of svg.querySelectorAll(":scope > .edge")) {
      const [from, to] = [+edge.dataset.from, +edge.dataset.to];
      const path = edge.querySelector("path");
      const between = pointsOf(path).slice(1, -1).map(([x, y]) => [toX(x), toY(y)]);
      const [[x, y], [u, v]] = [middle(from), middle(to)];
      path.setAttribute("d", drawnThrough([[x, y + half(from)], ...between, [u, v - half(to)]]));
    }
    for (const label of svg.querySelectorAll(":scope > .label")) {
      const from = +label.dataset.from;
      const box = boxes[from];
      label.line ??= Math.round((+label.getAttribute("y") - box.y - box.h) / LINE);
      const [x, y] = middle(from);
      label.setAttribute("x", x + 6);
      label.setAttribute("y", y + half(from) + LINE * label.line);
    }
    const all = (axis) => [...axis.values()].reduce((sum, more) => sum + more, 0);
    return [+svg.dataset.width + all(columns), +svg.dataset.height + all(rows)];
  }

  // The boxes that are seen, with their places in the outermost drawing.
  function visible(svg, dx = 0, dy = 0) {
    const { boxes } = graphs[+svg.dataset.graph];
    return [...svg.querySelectorAll(":scope > .box")].flatMap((box) => {
      const index = +box.dataset.box;
      const { x, y, h } = boxes[index].now ?? boxes[index];
      if (!box.classList.contains("open")) return [{ box, kind: boxes[index].kind, x: x + dx, y: y + dy, h }];
      const frame = svg.querySelector(`:scope > .unfolded[data-box="${index}"]`);
      const wide = +frame.querySelector(":scope > .frame").getAttribute("width");
      const left = x + dx + WIDTH / 2 - wide / 2;
      return visible(frame.querySelector(":scope > svg"), left + MARGIN, y + dy + HEAD);
    });
  }

  function unfold(box) {
    const [title, number] = facts(box).inside[0];
    const family = [...box.classList].find((name) => name.startsWith("f-")) || "";
    const frame = made("g", { class: `unfolded ${family}`, "data-box": box.dataset.box });
    const name = made("text", { class: "title", x: 10, y: 18 });
    name.textContent = title;
    const fold = made("g", {
      class: "fold", tabindex: 0, role: "button", "aria-label": `Fold ${title}`,
    });
    const sign = made("text", { x: WIDTH - 20, y: 18 });
    sign.textContent = "\u2212";
    fold.append(made("rect", { x: WIDTH - 26, y: 4, width: 20, height: 18, rx: 4 }), sign);
    const inner = templates[number].content.firstElementChild.cloneNode(true);
    inner.setAttribute("class", "nested");
    frame.append(
      made("rect", { class: "frame", rx: 7 }), made("rect", { class: "head", height: HEAD, rx: 7 }),
      name, fold, inner);
    box.classList.add("open");
    box.before(frame);
    return frame;
  }

  function fold(frame) {
    const box = home(frame).querySelector(`:scope > .box[data-box="${frame.dataset.box}"]`);
    box.classList.remove("open");
    frame.remove();
    return box;
  }

  return { arrange, canUnfold, facts, fold, home, unfold, visible };
};
