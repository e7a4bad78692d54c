"use strict";
// Sortable tables, and charts whose values can be read off by pointer, finger or arrow keys.
(() => {
  const MARGIN = { left: 56, right: 14, top: 8, bottom: 42 };

  // ---- tables

  function sortKey(cell) {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.textContent.trim() === "–" ? null : cell.textContent.trim();
  }

  function order(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing stays last
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  function sortBy(table, heading) {
    const column = heading.cellIndex;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [sortKey(row.cells[column]), row]);
    const numbers = rows.some(([key]) => typeof key === "number");
    const before = heading.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : numbers; // the best number first, the first letter first
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    rows.sort((a, b) => order(a[0], b[0], descending ? -1 : 1));
    body.append(...rows.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table.sortable"))
    for (const button of table.tHead.querySelectorAll("button"))
      button.addEventListener("click", () => sortBy(table, button.closest("th")));

  // ---- charts

  function svg(name, attributes, parent) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (parent) parent.append(node);
    return node;
  }

  function html(name, text, parent, className = "") {
    const node = document.createElement(name);
    node.textContent = text;
    if (className) node.className = className;
    if (parent) parent.append(node);
    return node;
  }

  // Normal deviate of a rate, to nine digits (Acklam's rational approximation).
  function deviate(rate) {
    const p = Math.min(Math.max(rate, 1e-12), 1 - 1e-12);
    if (p > 0.5) return -deviate(1 - p);
    const along = (values, x) => values.reduce((sum, value) => sum * x + value, 0);
    if (p < 0.02425) {
      const q = Math.sqrt(-2 * Math.log(p));
      return along([-7.784894002430293e-3, -0.3223964580411365, -2.400758277161838, -2.549732539343734,
        4.374664141464968, 2.938163982698783], q) /
        along([7.784695709041462e-3, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1], q);
    }
    const q = p - 0.5;
    return q * along([-39.69683028665376, 220.9460984245205, -275.9285104469687, 138.357751867269,
      -30.66479806614716, 2.506628277459239], q * q) /
      along([-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1], q * q);
  }

  // The rate of a normal deviate, by halving: the map back is asked only where somebody points.
  function rateOf(z) {
    let [low, high] = [Math.log(1e-12), 0];
    for (let n = 0; n < 60; n += 1) {
      const middle = (low + high) / 2;
      if (deviate(Math.exp(middle)) < z) low = middle;
      else high = middle;
    }
    return Math.exp(low);
  }

  const SCALES = {
    linear: { map: (value) => value, back: (value) => value },
    log: { map: Math.log10, back: (value) => 10 ** value },
    probit: { map: deviate, back: rateOf },
  };
  const RATES = [1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99];

  // Places values between two pixels, and pixels back to values.
  function scale([low, high], kind, from, to) {
    const { map, back } = SCALES[kind];
    const a = map(low);
    const span = map(high) - a;
    return {
      at: (value) => from + ((to - from) * (map(kind === "linear" ? value : Math.max(value, low)) - a)) / span,
      value: (pixel) => back(a + (span * (pixel - from)) / (to - from)),
    };
  }

  function ticks([low, high], kind, count) {
    const found = [];
    if (kind === "probit") return RATES.filter((rate) => rate >= low * (1 - 1e-9) && rate <= high * (1 + 1e-9));
    if (kind === "log") {
      const step = Math.max(1, Math.ceil(Math.log10(high / low) / count));
      for (let power = Math.ceil(Math.log10(low) - 1e-9); power <= Math.log10(high) + 1e-9; power += step)
        found.push(10 ** power);
      return found;
    }
    const rough = (high - low) / count;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
    for (let n = Math.ceil(low / step - 1e-9); n <= high / step + 1e-9; n += 1) found.push(n * step);
    return found;
  }

  const minus = (text) => text.replace("e-", "e\u2212"); // a hyphen may end a line

  function tickText(value, kind) {
    if (kind !== "linear" && value < 0.01) return minus(value.toExponential(0));
    return String(Number(value.toPrecision(6)));
  }

  function outline(chart, line, x, y) {
    const points = [];
    const bars = chart.shape === "bars";
    line.y.forEach((value, n) => {
      const here = `${x.at(line.x[n]).toFixed(1)},${y.at(value).toFixed(1)}`;
      if (n && chart.shape === "steps") points.push(`${x.at(line.x[n]).toFixed(1)},${y.at(line.y[n - 1]).toFixed(1)}`);
      points.push(here);
      if (bars) points.push(`${x.at(line.x[n + 1]).toFixed(1)},${y.at(value).toFixed(1)}`);
    });
    return `M${points.join("L")}`;
  }

  function drawAxes(chart, x, y, box, root) {
    let free = -Infinity; // the ticks of a probit axis may be too near to each other for their texts
    for (const value of ticks(chart.x_range, chart.x_scale, box.width < 420 ? 4 : 6)) {
      const at = x.at(value);
      const text = tickText(value, chart.x_scale);
      svg("line", { x1: at, x2: at, y1: box.top, y2: box.bottom, class: "grid" }, root);
      if (at < free) continue;
      svg("text", { x: at, y: box.bottom + 16, "text-anchor": "middle" }, root).textContent = text;
      free = at + 8 * text.length + 6;
    }
    free = Infinity;
    for (const value of ticks(chart.y_range, chart.y_scale, 5)) {
      const at = y.at(value);
      svg("line", { x1: box.left, x2: box.right, y1: at, y2: at, class: "grid" }, root);
      if (at > free) continue;
      const label = { x: box.left - 6, y: at + 4, "text-anchor": "end" };
      svg("text", label, root).textContent = tickText(value, chart.y_scale);
      free = at - 13;
    }
    svg("path", { d: `M${box.left},${box.top}V${box.bottom}H${box.right}`, class: "axis", fill: "none" }, root);
    const middle = (box.left + box.right) / 2;
    svg("text", { x: middle, y: box.bottom + 35, "text-anchor": "middle" }, root).textContent = chart.x_label;
    const turned = { "text-anchor": "middle", transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)` };
    svg("text", turned, root).textContent = chart.y_label;
  }

  const stroke = (line) => ({ stroke: line.colour, "stroke-dasharray": line.dash.join(" ") });

  function drawLines(chart, x, y, box, root, id) {
    const clip = svg("clipPath", { id }, svg("defs", {}, root));
    svg("rect", { x: box.left, y: box.top - 2, width: box.right - box.left, height: box.bottom - box.top + 4 }, clip);
    const group = svg("g", { "clip-path": `url(#${id})` }, root);
    for (const line of chart.lines) {
      const path = outline(chart, line, x, y);
      if (chart.shape === "bars") {
        const closed = `${path}L${x.at(line.x[line.x.length - 1])},${box.bottom}L${x.at(line.x[0])},${box.bottom}Z`;
        svg("path", { d: closed, fill: line.colour, "fill-opacity": 0.35 }, group);
      }
      svg("path", { d: path, fill: "none", "stroke-width": 2, ...stroke(line) }, group);
      if (chart.shape === "line" && line.x.length < 30)
        line.x.forEach((value, n) =>
          svg("circle", { cx: x.at(value), cy: y.at(line.y[n]), r: 3, fill: line.colour }, group));
    }
    for (const [label, place] of chart.marks) {
      const at = x.at(place);
      svg("line", { x1: at, x2: at, y1: box.top, y2: box.bottom, stroke: "#444", "stroke-dasharray": "5 4" }, group);
      const right = at > (box.left + box.right) / 2; // a label on the side where there is room
      const beside = { x: at + (right ? -5 : 5), y: box.top + 12, "text-anchor": right ? "end" : "start", class: "mark" };
      svg("text", beside, root).textContent = label;
    }
    if (chart.note) {
      const middle = { x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2, "text-anchor": "middle" };
      const corner = { x: box.left + 8, y: box.bottom - 8 };
      svg("text", { ...(chart.lines.length ? corner : middle), class: "note" }, root).textContent = chart.note;
    }
    return group;
  }

  // Row of a line's value at a place: of the step or bar that holds it, else of the nearest point; -1 outside.
  function rowAt(chart, line, value) {
    let row = -1;
    while (row + 1 < line.x.length && line.x[row + 1] <= value) row += 1;
    if (chart.shape === "bars") return row < line.y.length ? row : -1;
    if (chart.shape === "steps") return row;
    if (row < 0) return 0;
    const next = Math.min(row + 1, line.x.length - 1);
    return line.x[next] - value < value - line.x[row] ? next : row;
  }

  // Curves of single points are read off at one of them.
  function nearest(chart, value) {
    if (chart.shape !== "line") return value;
    const line = chart.lines[0];
    return line.x[rowAt(chart, line, value)];
  }

  function number(value, label) {
    if (value === null || value === undefined) return "–";
    if (label.endsWith("[%]")) return value.toFixed(2);
    return Math.abs(value) > 0 && Math.abs(value) < 1e-3 ? minus(value.toExponential(2)) : String(Number(value.toPrecision(4)));
  }

  function makeReadout(chart, figure) {
    const table = html("table", "", figure, "readout");
    const head = html("tr", "", html("thead", "", table));
    const place = html("th", "", head);
    html("th", chart.y_label, head, "number");
    const thresholds = chart.lines.some((line) => line.threshold);
    if (thresholds) html("th", "threshold", head, "number");
    const body = html("tbody", "", table);
    const rows = chart.lines.map((line) => {
      const row = html("tr", "", body);
      const name = html("td", "", row, "name");
      const swatch = svg("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" }, name);
      svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, "stroke-width": 4, ...stroke(line) }, swatch);
      name.append(line.name);
      return { value: html("td", "", row, "number"), threshold: thresholds ? html("td", "", row, "number") : null };
    });
    return { place, rows };
  }

  function drawChart(figure, chart, id) {
    figure.replaceChildren();
    html("figcaption", chart.title, figure);
    const width = Math.max(260, figure.clientWidth);
    const height = Math.round(Math.min(380, Math.max(250, 0.62 * width)));
    const label = chart.lines.length
      ? `${chart.title}. ${chart.y_label} over ${chart.x_label}. Arrow keys read values off.`
      : `${chart.title}. ${chart.note}.`;
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label }, figure);
    if (chart.lines.length) root.setAttribute("tabindex", 0);
    const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom, width };
    const x = scale(chart.x_range, chart.x_scale, box.left, box.right);
    const y = scale(chart.y_range, chart.y_scale, box.bottom, box.top);
    drawAxes(chart, x, y, box, root);
    const group = drawLines(chart, x, y, box, root, id);
    if (!chart.lines.length) return;
    const cursor = svg("g", {}, group);
    const readout = makeReadout(chart, figure);
    if (chart.kind === "training" && chart.lines.length > 1) figure.classList.add("own-legend");
    let at = null;
    const show = (pixel) => {
      at = Math.min(box.right, Math.max(box.left, pixel));
      const value = nearest(chart, x.value(at));
      cursor.replaceChildren();
      figure.classList.add("read");
      const rule = chart.shape === "line" ? x.at(value) : at;
      svg("line", { x1: rule, x2: rule, y1: box.top, y2: box.bottom, class: "cursor" }, cursor);
      readout.place.textContent = `${chart.x_label}: ${number(value, chart.x_label)}`;
      chart.lines.forEach((line, n) => {
        const row = rowAt(chart, line, value * (1 + 1e-9));
        readout.rows[n].value.textContent = number(row < 0 ? null : line.y[row], chart.y_label);
        if (readout.rows[n].threshold) readout.rows[n].threshold.textContent = threshold(line, row);
        if (row < 0) return;
        const cx = chart.shape === "line" ? x.at(line.x[row]) : at;
        svg("circle", { cx, cy: y.at(line.y[row]), r: 4, fill: line.colour, stroke: "#fff" }, cursor);
      });
    };
    const move = (event) => {
      const frame = root.getBoundingClientRect();
      show(((event.clientX - frame.left) * width) / frame.width);
    };
    root.addEventListener("pointermove", move);
    root.addEventListener("pointerdown", move);
    root.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      show((at === null ? (box.left + box.right) / 2 : at) + (step * (box.right - box.left)) / 100);
    });
  }

  function threshold(line, row) {
    const value = row < 0 || !line.threshold ? null : line.threshold[row];
    return value === null || value === undefined ? "–" : value.toFixed(4);
  }

  const charts = JSON.parse(document.getElementById("charts").textContent);
  const figures = document.querySelectorAll("figure[data-chart]");
  const widths = new Map();
  const draw = () => figures.forEach((figure, n) => {
    if (widths.get(figure) === figure.clientWidth) return; // a phone's address bar changes the height only
    widths.set(figure, figure.clientWidth);
    drawChart(figure, charts[Number(figure.dataset.chart)], `clip-${n}`);
  });
  draw();
  window.addEventListener("resize", draw);
})();
