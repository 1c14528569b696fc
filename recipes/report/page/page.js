'use strict';
// The page of `qlora report` and `qlora inspect data`: sections made from the JSON that lies in it.

const data = JSON.parse(document.getElementById('data').textContent);
const runs = data.runs || [];
const page = document.getElementById('page');

const kCharts = [
  {title: 'Loss (nats a token)', loss: true, wide: true, smooths: true,
    keys: [['loss', 'training'], ['eval_loss', 'evaluation']]},
  {title: 'Learning rate', keys: [['learning_rate', 'learning rate']]},
  {title: 'Norm of the gradient before clipping', smooths: true, keys: [['grad_norm', 'gradient norm']]},
  {title: 'Tokens a second', smooths: true, keys: [['tokens_per_second', 'tokens/s']]},
  {title: 'Most memory held so far (GB)', scale: 1e-9, keys: [['peak_memory_bytes', 'memory']]},
  {title: 'Rewards of chosen and rejected answers', smooths: true,
    keys: [['rewards_chosen', 'chosen'], ['rewards_rejected', 'rejected'],
      ['eval_rewards_chosen', 'chosen, evaluation'], ['eval_rewards_rejected', 'rejected, evaluation']]},
  {title: 'Margin of the rewards', smooths: true,
    keys: [['rewards_margin', 'training'], ['eval_rewards_margin', 'evaluation']]},
  {title: 'Share of pairs whose chosen answer has the higher reward', smooths: true,
    keys: [['rewards_accuracy', 'training'], ['eval_rewards_accuracy', 'evaluation']]},
  {title: 'Log-probabilities of the answers', smooths: true,
    keys: [['logps_chosen', 'chosen'], ['logps_rejected', 'rejected'],
      ['eval_logps_chosen', 'chosen, evaluation'], ['eval_logps_rejected', 'rejected, evaluation']]},
  {title: 'Loss of the chosen answers (nats a token)', smooths: true,
    keys: [['nll', 'training'], ['eval_nll', 'evaluation']]},
];

function running(values) {
  let sum = 0;
  return values.map((value) => (sum += isNumber(value) ? value : 0));
}

// The places of a run's steps on each axis; evaluations stand where their step does.
function axesOf(run) {
  const steps = run.steps.step || [];
  const axes = {step: steps, epoch: run.steps.epoch || steps, tokens: running(run.steps.tokens || []),
    minutes: running(run.steps.step_seconds || []).map((seconds) => seconds / 60)};
  const at = new Map(steps.map((step, i) => [step, i]));
  const evaluated = (run.evaluations.step || []);
  return (of, axis) => {
    const xs = axes[axis].length === steps.length ? axes[axis] : steps;
    if (of === 'steps') return xs;
    return evaluated.map((step) => (at.has(step) ? xs[at.get(step)] : (axis === 'step' ? step : 0)));
  };
}

function seriesOf(chart) {
  const series = [];
  runs.forEach((run, r) => {
    const axes = axesOf(run);
    chart.keys.forEach(([key, label], k) => {
      const of = key.startsWith('eval_') ? 'evaluations' : 'steps';
      const values = run[of][key];
      if (!values || !values.some(isNumber)) return;
      series.push({
        label: runs.length > 1 ? `${run.name}: ${label}` : label,
        colour: (runs.length > 1 ? r : k) % 8, dash: runs.length > 1 ? k % 4 : 0,
        points: of === 'evaluations', smooths: chart.smooths && of === 'steps',
        xs: (axis) => axes(of, axis), values: chart.scale ? values.map((v) => (isNumber(v) ? v * chart.scale : v)) : values,
      });
    });
  });
  return series;
}

function slider(text, value, change) {
  const shown = element('output', {}, value.toFixed(2));
  const input = element('input', {type: 'range', min: '0', max: '0.99', step: '0.01', value: String(value)});
  input.addEventListener('input', () => {
    shown.textContent = Number(input.value).toFixed(2);
    change(Number(input.value));
  });
  return element('label', {}, text, input, shown);
}

function tick(text, change) {
  const input = element('input', {type: 'checkbox'});
  input.addEventListener('change', () => change(input.checked));
  return element('label', {}, input, text);
}

function choice(text, options, chosen, change) {
  const select = element('select', {}, ...options.map(([value, label]) => element('option', {value}, label)));
  select.value = chosen;
  select.addEventListener('change', () => change(select.value));
  return element('label', {}, text, select);
}

function chartSection() {
  const charts = [];
  const grid = element('div', {class: 'cards'});
  for (const about of kCharts) {
    const series = seriesOf(about);
    if (series.length === 0) continue;
    const chart = new LineChart(about.title, series);
    chart.loss = about.loss;
    if (about.wide) chart.box.classList.add('wide');
    grid.append(chart.box);
    charts.push(chart);
  }
  const steps = Math.max(0, ...runs.map((run) => (run.steps.step || []).length));
  if (charts.length === 0) return [element('p', {class: 'soft'}, 'No step was finished: metrics.jsonl holds no lines.')];
  const smoothing = steps >= 60 ? 0.8 : 0;
  const all = (settings) => charts.forEach((chart) => chart.set(settings));
  all({smoothing});
  return [element('div', {class: 'controls'},
    slider('smoothing', smoothing, (value) => all({smoothing: value})),
    tick('loss on a logarithmic scale', (log) => charts.filter((chart) => chart.loss).forEach((chart) => chart.set({log}))),
    choice('against', [['step', 'step'], ['epoch', 'epoch'], ['tokens', 'tokens'], ['minutes', 'minutes of training']], 'step',
      (axis) => all({axis}))), grid];
}

// A table with a column for each run, of the rows that any of them has: [[label, value], ...] each.
function comparison(lists) {
  const labels = [...new Set(lists.flatMap((list) => list.map(([label]) => label)))];
  const head = runs.length > 1 ? [element('thead', {}, element('tr', {}, element('th'),
    ...runs.map((run, r) => element('th', {class: `s${r % 8}`, scope: 'col'}, run.name))))] : [];
  const body = labels.map((label) => element('tr', {}, element('th', {scope: 'row'}, label), ...lists.map((list) => {
    const found = list.find(([name]) => name === label);
    return element('td', {}, found ? found[1] : '–');
  })));
  return element('div', {class: 'scroll'}, element('table', {class: runs.length > 1 ? 'several' : 'one'}, ...head, element('tbody', {}, ...body)));
}

// A card for each run that has something to show; `bare`: the content has cards of its own.
function perRun(make, bare) {
  return runs.map((run, r) => {
    const content = make(run, r);
    if (!content) return null;
    return element('div', {class: bare ? 'stack' : 'card stack'}, runs.length > 1 ? element('h3', {class: `s${r % 8}`}, run.name) : null, ...content);
  }).filter(Boolean);
}

const megabytes = (bytes) => (isNumber(bytes) ? `${numberText(bytes / 1e6)} MB` : '–');

function memoryOf(run) {
  const memory = run.memory;
  if (!memory) return null;
  const most = Math.max(memory.predicted_bytes || 0, memory.measured_bytes || 0, memory.peak_bytes || 0, 1);
  const line = (label, bytes, colour) => element('tr', {}, element('th', {scope: 'row'}, label),
    element('td', {class: 'number'}, megabytes(bytes)), element('td', {class: `s${colour}`, style: 'width: 45%'},
      isNumber(bytes) ? bar(bytes / most) : ''));
  const table = element('table', {style: 'width: 100%'}, element('tbody', {}, line('predicted peak of training', memory.predicted_bytes, 0),
    line('measured', memory.measured_bytes, 2), line('most that the process held', memory.peak_bytes, 1)));
  const lines = [...(memory.lines || [])].sort((a, b) => b.bytes - a.bytes);
  if (lines.length === 0) return [table];
  const parts = element('table', {}, element('thead', {}, element('tr', {}, ...['purpose', 'when', 'predicted'].map((text) =>
    element('th', {scope: 'col'}, text)))), element('tbody', {}, ...lines.map((one) => element('tr', {},
    element('td', {}, one.purpose), element('td', {class: 'soft'}, one.phase), element('td', {class: 'number'}, megabytes(one.bytes))))));
  return [table, element('details', {}, element('summary', {}, 'What the prediction is made of'), element('div', {class: 'scroll'}, parts))];
}

function bar(share) {
  const made = element('div', {class: 'bar'});
  made.style.width = `${(100 * share).toFixed(1)}%`;
  return made;
}

function rowBox(row) {
  const side = row.side ? `, ${row.side}` : '';
  const share = row.tokens ? (100 * row.supervised / row.tokens).toFixed(1) : '0';
  const text = element('pre', {}, ...row.spans.map(([trained, span]) => element('span', {class: trained ? 'trained' : 'read'}, span)));
  return element('div', {class: 'card row'},
    element('h3', {}, `${row.part}, dataset ${row.source}, row ${row.row}${side}: `,
      element('span', {class: 'soft'}, `${row.tokens} tokens, ${row.supervised} trained (${share} %)`)),
    row.encoded ? element('pre', {class: 'encoded'}, row.encoded) : null, text);
}

function rowsLegend() {
  return element('p', {class: 'row'}, element('span', {class: 'trained'}, 'what the model learns to write'), ' ',
    element('span', {class: 'read'}, 'what it only reads'));
}

function samplesOf(run) {
  if (!run.samples || run.samples.length === 0) return null;
  const prompts = new Map();
  for (const sample of run.samples) {
    if (!prompts.has(sample.prompt)) prompts.set(sample.prompt, []);
    prompts.get(sample.prompt).push(sample);
  }
  return [...prompts].map(([prompt, samples]) => {
    const after = element('div');
    const show = (index) => {
      const head = samples.length > 2 ? choice('step', samples.map((sample, i) => [String(i), String(sample.step)]), String(index),
        (value) => show(Number(value))) : `step ${samples[index].step}`;
      after.replaceChildren(element('h3', {}, head), element('pre', {}, samples[index].answer));
    };
    show(samples.length - 1);
    const before = element('div', {}, element('h3', {}, `step ${samples[0].step}`), element('pre', {}, samples[0].answer));
    return element('div', {}, element('pre', {class: 'soft'}, prompt),
      element('div', {class: 'pair'}, samples.length > 1 ? before : null, after));
  });
}

function recipeOf(run) {
  if (!run.recipe) return null;
  return [element('details', runs.length > 1 ? {} : {open: ''}, element('summary', {}, 'recipe.resolved.yaml'), element('pre', {}, run.recipe))];
}

function logOf(run) {
  if (!run.log || run.log.length === 0) return null;
  return [element('details', run.finished ? {} : {open: ''}, element('summary', {}, 'The last lines of log.txt'),
    element('pre', {}, run.log.join('\n')))];
}

function add(title, parts, grid) {
  const content = parts.filter(Boolean);
  if (content.length === 0) return;
  page.append(element('h2', {}, title), ...(grid && content.length > 1 ? [element('div', {class: 'cards'}, ...content)]
    : [element('div', {class: 'stack'}, ...content)]));
}

function showRuns() {
  page.append(element('h1', {}, runs.map((run) => run.name).join(', ')));
  for (const run of runs) {
    page.append(element('p', {class: run.finished ? 'soft' : 'warn'}, runs.length > 1 ? `${run.name}: ${run.status}` : run.status));
  }
  add('Overview', [element('div', {class: 'card'}, comparison(runs.map((run) => run.facts)))]);
  add('Course', chartSection());
  add('Memory', perRun(memoryOf), true);
  add('Answers on the way', perRun(samplesOf));
  const rows = perRun((run) => (run.rows.length || run.rows_note ? [
    run.rows_note ? element('p', {class: 'warn'}, run.rows_note) : null, ...run.rows.map(rowBox)].filter(Boolean) : null), true);
  add('Rows as they are trained', rows.length ? [rowsLegend(), ...rows] : []);
  if (runs.some((run) => run.checks.length)) {
    add('Base and exports', [element('div', {class: 'card'}, comparison(runs.map((run) => run.checks)))]);
  }
  if (runs.length > 1 && data.differences.length) {
    add('Where the recipes differ', [element('div', {class: 'card'},
      comparison(runs.map((_, r) => data.differences.map(([key, values]) => [key, values[r]]))))]);
  }
  add('Recipe', perRun(recipeOf));
  add('Log', perRun(logOf));
}

function showData() {
  page.append(element('h1', {}, data.title));
  add('Data sets', data.reports.map(([part, text]) => element('div', {class: 'card'}, element('h3', {}, part), element('pre', {}, text))));
  add('Warnings', data.warnings.map((text) => element('p', {class: 'warn'}, text)));
  add('Rows', [rowsLegend(), ...data.rows.map(rowBox)]);
}

document.title = data.title;
if (data.kind === 'data') showData(); else showRuns();
page.append(element('p', {class: 'soft'}, data.made));
