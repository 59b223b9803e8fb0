"use strict";
// Shows the values of a plot at the pointer, or at the place that the arrow keys have reached.
const SVG = "http://www.w3.org/2000/svg";

function format(value, percent) {
  if (percent) return (100 * value).toFixed(2) + "%";
  const size = Math.abs(value);
  if (size === 0 || !isFinite(value)) return String(value);
  if (size < 1e-3 || size >= 1e7) return Number(value.toPrecision(4)).toExponential().replace("e+", "e");
  const digits = Math.max(0, 3 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en-US", {maximumFractionDigits: digits});
}

function make(tag, parent, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  if (name === "tip") made.setAttribute("role", "status");  // a screen reader reads it
  parent.append(made);
  return made;
}

// Puts the tip beside a place of the area, in pixels, so that it stays in the window.
function place(tip, area, x, y) {
  tip.hidden = false;
  const box = area.getBoundingClientRect(), wide = tip.offsetWidth, high = tip.offsetHeight;
  const right = document.documentElement.clientWidth - box.left - wide - 6;
  const left = x + 14 + wide <= box.width ? x + 14 : x - 14 - wide;
  tip.style.left = Math.min(Math.max(left, 6 - box.left), right) + "px";
  tip.style.top = Math.min(Math.max(y - high / 2, 0), Math.max(box.height - high, 0)) + "px";
}

function listen(area, show, hide, step) {
  const at = event => {
    const box = area.getBoundingClientRect();
    show((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  area.addEventListener("pointermove", at);
  area.addEventListener("pointerdown", at);
  area.addEventListener("pointerleave", hide);
  area.addEventListener("blur", hide);
  area.addEventListener("keydown", event => {
    const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    if (event.key === "Escape") hide();
    else if (moves[event.key]) { event.preventDefault(); step(...moves[event.key]); }
  });
}

function followPlot(figure) {
  const [axes, series] = JSON.parse(figure.dataset.plot), rows = "rows" in figure.dataset;
  const area = figure.querySelector(".area"), svg = area.querySelector("svg"), main = rows ? 1 : 0;
  const position = (axis, value) => {
    const [low, high, log] = axes[axis];
    if (value === null || (log && value <= 0)) return null;
    const part = log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    return Math.min(Math.max(part, 0), 1);
  };
  const text = (axis, value) => axes[axis][4].length ? axes[axis][4][value] : format(value, axes[axis][3]);
  const span = found => {
    const values = found.map(point => point.value[1 - main]);
    return [Math.min(...values), Math.max(...values)].map(value => text(1 - main, value)).join(" to ");
  };
  const keys = [...figure.querySelectorAll(".legend > span")], points = [];
  series.forEach(([name, line, xs, ys], index) => xs.forEach((x, i) => {
    const at = [position(0, x), position(1, ys[i])];
    if (at[0] !== null && at[1] !== null) points.push({index, line, at, value: [x, ys[i]]});
  }));
  if (!points.length) return;
  const stops = [...new Set(points.map(point => point.at[main]))].sort((a, b) => a - b);
  const guide = svg.appendChild(document.createElementNS(SVG, "line")), tip = make("div", area, "tip");
  guide.setAttribute("class", "guide");
  let stop = -1;
  const hide = () => { tip.hidden = true; guide.style.display = "none"; svg.querySelectorAll(".at").forEach(dot => dot.remove()); };
  hide();

  function show(x, y) {
    const wanted = rows ? y : x;
    stop = stops.reduce((best, s, i) => Math.abs(s - wanted) < Math.abs(stops[best] - wanted) ? i : best, 0);
    hide();
    const here = stops[stop], percent = 100 * here + "%", shown = [];
    series.forEach(([name, line], index) => {
      const own = points.filter(point => point.index === index), mains = own.map(point => point.at[main]);
      if (!own.length || here < Math.min(...mains) - 0.02 || here > Math.max(...mains) + 0.02) return;
      const near = own.reduce((a, b) => Math.abs(b.at[main] - here) < Math.abs(a.at[main] - here) ? b : a);
      const same = own.filter(point => point.at[main] === near.at[main]);
      if (line ? true : Math.abs(near.at[main] - here) < 0.004) shown.push([name, index, line ? [near] : same]);
    });
    const first = shown.flatMap(each => each[2]).find(point => point.at[main] === here) || points[0];
    tip.replaceChildren();
    const axis = rows ? "" : figure.querySelector(".xname").textContent + ": ";
    make("b", tip, "", axis + text(main, first.value[main]));
    for (const [name, index, found] of shown) {
      const row = make("span", tip, keys[index].className), values = found.map(point => text(1 - main, point.value[1 - main]));
      row.append(keys[index].querySelector(".swatch").cloneNode());
      make("em", row, "", name);
      make("b", row, "", values.length > 3 ? `${span(found)} (${values.length})` : values.join(", "));
      for (const point of found) {
        const dot = svg.appendChild(document.createElementNS(SVG, "circle"));
        dot.setAttribute("class", "at " + keys[index].className);
        dot.setAttribute("cx", 100 * point.at[0] + "%");
        dot.setAttribute("cy", 100 * (rows ? point.at[1] : 1 - point.at[1]) + "%");
        dot.setAttribute("r", 4.5);
      }
    }
    const [a, b] = rows ? ["y1", "y2"] : ["x1", "x2"], [c, d] = rows ? ["x1", "x2"] : ["y1", "y2"];
    for (const [name, value] of [[a, percent], [b, percent], [c, 0], [d, "100%"]]) guide.setAttribute(name, value);
    guide.style.display = "";
    const box = area.getBoundingClientRect();
    place(tip, area, (rows ? x : here) * box.width, (rows ? here : y) * box.height);
  }
  listen(area, show, hide, (right, down) => {
    const next = Math.min(Math.max(stop + (rows ? down : right || -down), 0), stops.length - 1);
    rows ? show(0.5, stops[next]) : show(stops[next], 0.5);
  });
  for (const key of keys) {  // the pointer on a name shows its line alone
    const own = [...key.dataset.classes.split(" ")].map(name => "." + name).join("");
    const marks = [...svg.querySelectorAll("path,circle,rect")].filter(mark => mark.matches(own)
      && (own.split(".").length > 2 || !mark.matches(".dashed,.dotted,.faint")));
    key.addEventListener("pointerenter", () => { figure.classList.add("dim"); marks.forEach(mark => mark.classList.add("on")); });
    key.addEventListener("pointerleave", () => { figure.classList.remove("dim"); marks.forEach(mark => mark.classList.remove("on")); });
  }
}

function followCells(figure) {
  const [axes, label, [rows, columns], cells] = JSON.parse(figure.dataset.cells);
  if (!rows || !columns) return;
  const area = figure.querySelector(".area"), tip = make("div", area, "tip"), frame = make("div", area, "cellat");
  const hide = () => { tip.hidden = frame.hidden = true; };
  const name = (axis, index, count) => {
    const [title, low, high, labels] = axes[axis];
    if (labels.length) return `${title}: ${labels[index]}`;
    const [first, last] = [index, index + 1].map(i => low + (high - low) * i / count);
    const [a, b] = [Math.ceil(first), Math.ceil(last) - 1];
    return `${title}: ${format(a, false)}` + (b > a ? ` to ${format(b, false)}` : "");
  };
  let row = -1, column = -1;
  hide();
  function show(x, y) {
    column = Math.min(Math.max(Math.floor(x * columns), 0), columns - 1);
    row = Math.min(Math.max(Math.floor(y * rows), 0), rows - 1);
    tip.replaceChildren();
    make("span", tip, "", name(1, row, rows));
    make("span", tip, "", name(0, column, columns));
    const value = cells.length ? cells[row][column] : null;
    if (value !== null) make("b", tip, "", typeof value === "string" ? value : (label && label + ": ") + format(value, false));
    Object.assign(frame.style, {left: 100 * column / columns + "%", top: 100 * row / rows + "%",
      width: `max(${100 / columns}%, 4px)`, height: `max(${100 / rows}%, 4px)`});
    frame.hidden = false;
    const box = area.getBoundingClientRect();
    place(tip, area, (column + 0.5) / columns * box.width, (row + 0.5) / rows * box.height);
  }
  listen(area, show, hide, (right, down) => show((column + right + 0.5) / columns, (row + down + 0.5) / rows));
}

for (const figure of document.querySelectorAll("figure[data-plot]")) followPlot(figure);
for (const figure of document.querySelectorAll("figure[data-cells]")) followCells(figure);
