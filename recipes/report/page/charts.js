'use strict';
// Line charts on inline SVG. All text goes into the page as text nodes and attributes, never as markup.

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

// As people write it: 0.0213, 1,411, 2.34e-4.
function numberText(value) {
  if (!isNumber(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) {
    return value.toExponential(3).replace(/\.?0+e/, 'e').replace('e+', 'e');
  }
  if (size >= 1000) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(4)));
}

// Exponential moving average, divided by the sum of its weights so that it does not start at 0; gaps stay gaps.
function smoothed(values, weight) {
  if (weight <= 0) return values;
  let sum = 0, weights = 0;
  return values.map((value) => {
    if (!isNumber(value)) return value;
    sum = weight * sum + (1 - weight) * value;
    weights = weight * weights + (1 - weight);
    return sum / weights;
  });
}

function linearTicks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999) || raw;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) ticks.push(i * step);
  return ticks.map((tick) => Number(tick.toPrecision(12)));
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power) {
    for (const factor of [1, 2, 5]) {
      const tick = factor * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(Number(tick.toPrecision(12)));
    }
  }
  if (ticks.length < 2) return linearTicks(low, high, 4).filter((tick) => tick > 0);
  return ticks.length > 9 ? ticks.filter((tick) => /^1e|^0*\.?0*10*$/.test(String(tick))) : ticks;
}

// The range of finite values, a little wider than they are.
function rangeOf(lists, log) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) {
    for (const value of list) {
      if (!isNumber(value) || (log && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return null;
  if (log) return low === high ? [low / 2, high * 2] : [low / 1.06, high * 1.06];
  const room = (high - low) * 0.04 || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

// Where more points lie in a column of pixels than it shows, its lowest and highest stand for them.
function thinned(points, columns) {
  if (points.length <= 4 * columns) return points;
  const kept = [];
  const size = points.length / (2 * columns);
  for (let begin = 0; begin < points.length; begin += size) {
    const part = points.slice(Math.floor(begin), Math.floor(begin + size)).filter(Boolean);
    if (part.length === 0) {
      kept.push(null);
      continue;
    }
    let low = 0, high = 0;
    part.forEach((point, i) => {
      if (point[1] < part[low][1]) low = i;
      if (point[1] > part[high][1]) high = i;
    });
    kept.push(part[Math.min(low, high)]);
    if (low !== high) kept.push(part[Math.max(low, high)]);
  }
  return kept;
}

function pathOf(points) {
  let text = '', pen = 'M';
  for (const point of points) {
    if (!point) {
      pen = 'M';
      continue;
    }
    text += `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    pen = 'L';
  }
  return text;
}

// The index whose x is nearest to `x`; x ascend.
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - xs[low - 1] <= xs[low] - x ? low - 1 : low;
}

const kDashes = ['', '6 4', '2 3', '9 3 2 3'];

// series: [{label, colour: 0..7, dash: 0..3, points: drawn as dots too, smooths, xs(axis), values}]
class LineChart {
  constructor(title, series) {
    this.series = series.map((one) => ({...one, shown: true}));
    this.settings = {smoothing: 0, log: false, axis: 'step'};
    this.place = element('div', {class: 'chart'});
    this.readout = element('div', {class: 'readout', hidden: ''});
    this.legend = element('ul', {class: 'legend'}, ...this.series.map((one) => this.legendItem(one)));
    this.box = element('div', {class: 'card'}, element('h3', {}, title), this.place, this.legend);
    this.title = title;
    new ResizeObserver(() => this.draw()).observe(this.place);
    this.place.addEventListener('pointermove', (event) => this.point(event));
    this.place.addEventListener('pointerdown', (event) => this.point(event));
    this.place.addEventListener('pointerleave', () => this.leave());
  }

  legendItem(one) {
    const sample = shape('svg', {width: 26, height: 10, 'aria-hidden': 'true', class: `s${one.colour}`});
    sample.append(shape('line', {x1: 0, x2: 26, y1: 5, y2: 5, 'stroke-width': 2, 'stroke-dasharray': kDashes[one.dash]}));
    const button = element('button', {type: 'button', 'aria-pressed': 'true'}, sample, one.label);
    button.addEventListener('click', () => {
      one.shown = !one.shown;
      button.setAttribute('aria-pressed', String(one.shown));
      this.draw();
    });
    return element('li', {}, button);
  }

  set(settings) {
    Object.assign(this.settings, settings);
    this.draw();
  }

  draw() {
    const width = this.place.clientWidth;
    if (width < 60) return;
    const height = width < 500 ? 210 : 260;
    const inside = {left: 58, right: width - 10, top: 10, bottom: height - 28};
    const svg = shape('svg', {width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': this.title});
    const lines = this.series.filter((one) => one.shown).map((one) => {
      const xs = one.xs(this.settings.axis);
      const weight = one.smooths ? this.settings.smoothing : 0;
      return {one, xs, raw: one.values, values: smoothed(one.values, weight), weight};
    });
    const x = rangeOf(lines.map((line) => line.xs), false);
    const y = rangeOf(lines.flatMap((line) => (line.weight > 0.9 ? [line.values] : [line.raw])), this.settings.log);
    this.scale = null;
    if (x && y) {
      this.scale = this.scaleOf(x, y, inside);
      this.drawAxes(svg, x, y, inside, width);
      for (const line of lines) this.drawLine(svg, line, inside);
    } else {
      const text = shape('text', {x: width / 2, y: height / 2, 'text-anchor': 'middle'});
      text.textContent = 'no values';
      svg.append(text);
    }
    this.lines = lines;
    this.inside = inside;
    this.cross = shape('line', {class: 'cross', y1: inside.top, y2: inside.bottom, visibility: 'hidden'});
    svg.append(this.cross);
    this.readout.hidden = true;
    this.place.replaceChildren(svg, this.readout);
  }

  scaleOf(x, y, inside) {
    const {log} = this.settings;
    const of = log ? Math.log10 : (value) => value;
    const across = (inside.right - inside.left) / (x[1] - x[0]);
    const up = (inside.bottom - inside.top) / (of(y[1]) - of(y[0]));
    return {
      x: (value) => inside.left + (value - x[0]) * across,
      y: (value) => inside.bottom - (of(value) - of(y[0])) * up,
      fits: (value) => isNumber(value) && (!log || value > 0),
      back: (pixel) => x[0] + (pixel - inside.left) / across,
    };
  }

  drawAxes(svg, x, y, inside, width) {
    const label = (text, attributes) => {
      const made = shape('text', attributes);
      made.textContent = text;
      svg.append(made);
    };
    for (const tick of this.settings.log ? logTicks(y[0], y[1]) : linearTicks(y[0], y[1], 5)) {
      const at = this.scale.y(tick);
      svg.append(shape('line', {class: 'grid', x1: inside.left, x2: inside.right, y1: at, y2: at}));
      label(numberText(tick), {x: inside.left - 6, y: at + 4, 'text-anchor': 'end'});
    }
    const ticks = linearTicks(Math.max(x[0], 0), x[1], width < 500 ? 4 : 8);
    for (const tick of ticks) {
      label(numberText(tick), {x: this.scale.x(tick), y: inside.bottom + 18, 'text-anchor': 'middle'});
    }
    svg.append(shape('line', {class: 'axis', x1: inside.left, x2: inside.right, y1: inside.bottom, y2: inside.bottom}));
  }

  drawLine(svg, line, inside) {
    const columns = inside.right - inside.left;
    const {one, xs} = line;
    const at = (values) => values.map((value, i) =>
      (this.scale.fits(value) ? [this.scale.x(xs[i]), this.scale.y(value)] : null));
    const box = shape('svg', {x: inside.left - 4, y: inside.top, width: columns + 8, height: inside.bottom - inside.top,
      viewBox: `${inside.left - 4} ${inside.top} ${columns + 8} ${inside.bottom - inside.top}`});
    const add = (values, more) => box.append(shape('path', {d: pathOf(thinned(at(values), columns)), ...more}));
    if (line.weight > 0) add(line.raw, {class: `raw s${one.colour}`});
    add(line.values, {class: `s${one.colour}`, 'stroke-dasharray': kDashes[one.dash]});
    if (one.points || xs.length === 1) {
      for (const point of thinned(at(line.values), columns).filter(Boolean)) {
        box.append(shape('circle', {cx: point[0].toFixed(1), cy: point[1].toFixed(1), r: 2.6, class: `s${one.colour}`}));
      }
    }
    svg.append(box);
  }

  point(event) {
    if (!this.scale || this.lines.length === 0) return;
    const left = this.place.getBoundingClientRect().left;
    const wanted = this.scale.back(event.clientX - left);
    // The point that is nearest in any line; of each line then its own at most as far away as the steps are apart.
    let x = null;
    for (const line of this.lines) {
      if (line.xs.length === 0) continue;
      const found = line.xs[nearest(line.xs, wanted)];
      if (x === null || Math.abs(found - wanted) < Math.abs(x - wanted)) x = found;
    }
    if (x === null) return;
    const rows = [];
    for (const line of this.lines) {
      if (line.xs.length === 0) continue;
      const index = nearest(line.xs, x);
      if (Math.abs(line.xs[index] - x) > Math.abs(x) * 1e-9 + 1e-9) continue;
      const value = line.weight > 0 ? `${numberText(line.values[index])} (${numberText(line.raw[index])})`
        : numberText(line.values[index]);
      rows.push(element('div', {}, element('span', {class: `s${line.one.colour}`}, line.one.label), element('span', {}, value)));
    }
    const at = this.scale.x(x);
    this.cross.setAttribute('x1', at);
    this.cross.setAttribute('x2', at);
    this.cross.setAttribute('visibility', 'visible');
    this.readout.replaceChildren(element('div', {class: 'soft'}, `${this.settings.axis} ${numberText(x)}`), ...rows);
    this.readout.hidden = false;
    const half = (this.inside.left + this.inside.right) / 2;
    this.readout.style.left = at < half ? `${at + 10}px` : 'auto';
    this.readout.style.right = at < half ? 'auto' : `${this.place.clientWidth - at + 10}px`;
  }

  leave() {
    this.readout.hidden = true;
    if (this.cross) this.cross.setAttribute('visibility', 'hidden');
  }
}
