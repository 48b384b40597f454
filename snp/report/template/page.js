// The page's behaviour: filters, charts, and the pages of rows and runs. Everything shown is in #values (JSON, gzip, base64).

const packed = Uint8Array.from(atob(document.getElementById("values").textContent), letter => letter.charCodeAt(0));
const values = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
const specs = JSON.parse(document.getElementById("charts").textContent);
const library = new Blob([document.getElementById("datatables").textContent], {type: "text/javascript"});
const {default: DataTable} = await import(URL.createObjectURL(library));
const root = document.documentElement, overview = document.getElementById("overview"), detail = document.getElementById("detail");
const WHOLE = ["joint", "structured", "shared", "dense"], SINGLE = ["unstructured", "dense"];
const FAR = 25;  // points below the best: rows beyond are said and not drawn, so that the others can be told apart
const EARLY = "zero_shot_";  // begins the names of figures that were measured before fine-tuning
const COMPONENTS = {ffn: "feed-forward", qk: "query and key", vo: "value and output"};
const SEEDS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#888888"];

// ---- small tools

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {}))
    if (value !== null && value !== false) element.setAttribute(name, value);
  element.append(...children.flat(9).filter(child => child !== null && child !== undefined));
  return element;
}
const known = value => value !== null && value !== undefined;
const percent = share => known(share) ? `${(100 * share).toFixed(1)}%` : "";
const signed = value => `${value <= -0.05 ? "-" : "+"}${Math.abs(value).toFixed(1)}`;
const count = value => known(value) ? Math.round(value).toLocaleString("en") : "";
const interval = (low, high, form = value => value.toFixed(1)) => known(low) ? `[${form(low)}, ${form(high)}]` : "";
const rowLink = label => `#/row/${encodeURIComponent(label)}`;
const runLink = slug => `#/run/${encodeURIComponent(slug)}`;
const badge = (text, name = text.replace(" ", "-")) => make("span", {class: `badge ${name}`}, text);
const colour = name => getComputedStyle(root).getPropertyValue(name).trim();
const plain = name => name.replaceAll("_", " ").replace("iou", "IoU");
const whole = manifest => Object.fromEntries(Object.entries(manifest).map(
  ([name, value]) => [name, known(value?.shared) ? values.shared[value.shared] : value]));

// ---- charts

const look = () => ({
  background: "transparent", font: "system-ui, sans-serif", view: {stroke: null},
  axis: {labelColor: colour("--soft"), titleColor: colour("--soft"), gridColor: colour("--grid"), domainColor: colour("--line"),
         tickColor: colour("--line"), labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal"},
  text: {color: colour("--ink")}, line: {color: colour("--ink")},
});

const drawn = new Map();  // place of a chart -> how it is drawn, and the view to end
async function chart(place, name, lines, changes = {}, opened = null) {
  drawn.get(place)?.view?.finalize();
  const kept = {again: () => chart(place, name, lines, changes, opened)};
  drawn.set(place, kept);
  const spec = {...structuredClone(specs[name]), ...changes, datasets: {lines}, config: look(), autosize: {type: "fit-x", contains: "padding"}};
  const {view} = await window.vegaEmbed(place, spec, {actions: false, renderer: "svg", ast: true, logLevel: 1});
  kept.view = view;
  if (opened) view.addEventListener("click", (_, item) => item?.datum?.label && opened(item.datum));
}

// Charts of a page of details are many: each is drawn when it is about to be seen.
const seen = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries)
    if (isIntersecting) { seen.unobserve(target); chart(target, ...target.drawing); }
}, {rootMargin: "200px"});
function later(...drawing) {
  const place = make("div", {class: "chart"});
  place.drawing = drawing;
  seen.observe(place);
  return place;
}
function forget(within) {
  for (const [place, {view}] of drawn)
    if (within.contains(place)) { view?.finalize(); drawn.delete(place); }
}

// ---- leaderboard

const filters = document.getElementById("filters");
const COLUMNS = {data: 1, title: 2, phase: 3, group: 4, kind: 7};
DataTable.type("figure", {  // numbers of which some are missing: those come last, whatever the order
  detect: () => false,
  order: Object.fromEntries([["asc", 1], ["desc", -1]].map(([name, sign]) => [name, (a, b) =>
    a === "" || b === "" ? (a === "") - (b === "") : sign * (a - b)])),
});
const board = new DataTable("#board", {
  order: [[5, "desc"]], pageLength: 25, lengthMenu: [25, 50, 100, {label: "all", value: -1}], autoWidth: false,
  columnDefs: [
    {targets: [4, 5, 6, 8, 9, 10, 11, 12], type: "figure"},
    {targets: [5, 6, 11, 12], orderSequence: ["desc", "asc"]},
  ],
  layout: {topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging"},
  language: {info: "_START_ to _END_ of _TOTAL_", infoEmpty: "none", infoFiltered: "", lengthMenu: "_MENU_ a page",
             zeroRecords: "No row is like that: widen the filters."},
});

// Names at marks: of each method on the front, and of SNP, once, at the
// smallest model where there is room. Left above a mark of the front are only names; else a
// name stands below on the right, or is left to the tooltip.
function named(lines, cost, front, width) {
  const scores = lines.flatMap(line => [line.score_low ?? line.score, line.score_high ?? line.score]);
  const low = Math.min(...scores), unit = 380 / Math.max(Math.max(...scores) - low, 1), wide = width - 40;
  const found = new Map(), taken = [];
  const marks = lines.filter(line => line.fronts.includes(front)).toSorted((a, b) => cost(a) - cost(b));
  const own = lines.filter(line => line.method === "snp").toSorted((a, b) => cost(a) - cost(b)).slice(0, 1);
  const methods = new Set();
  for (const line of [...own, ...marks]) {
    if (methods.has(line.method)) continue;
    const x = cost(line) / 1.04 * wide, y = (line.score - low) * unit, long = line.method.length * 6.3 + 8;
    const sides = marks.includes(line) ? {left: [x - long, y + 4], right: [x + 4, y - 18]} : {right: [x + 4, y - 18]};
    for (const [side, [left, bottom]] of Object.entries(sides)) {
      const free = taken.every(box => left > box.left + box.long || box.left > left + long || Math.abs(bottom - box.bottom) > 14);
      if (!free || left < 0 || left + long > wide) continue;
      found.set(line, side);
      methods.add(line.method);
      taken.push({left, bottom, long});
      break;
    }
  }
  return found;
}

let panel = "whole units";
function filtered() {
  const lines = board.rows({search: "applied"}).nodes().toArray().map(node => values.lines[node.dataset.line]);
  const first = lines.find(line => known(line.score)) || lines[0];
  const one = first && (line => ["data", "title", "phase", "model"].every(name => line[name] === first[name]));
  return [first, one ? lines.filter(one) : []];
}

function draw() {
  const [first, lines] = filtered();
  const measured = lines.filter(line => known(line.score));
  const put = (id, said, cost, front, kinds) => {
    const members = measured.filter(line => kinds.includes(line.kind) && known(cost(line)));
    const best = Math.max(...members.map(line => line.score));
    const near = members.filter(line => line.score >= best - FAR);
    const place = document.getElementById(`chart-${id}`), names = named(near, cost, front, place.clientWidth);
    const gone = members.length - near.length;
    document.getElementById(`${id}-said`).textContent = first
      ? `${first.data}: ${first.title}-like ${first.metric} in %, over ${said}; ${first.phase}` +
        (gone ? `. Not drawn: ${gone} rows more than ${FAR} points below the best` : "") : "";
    chart(place, "cost", near.map(line => ({
      ...line, cost: cost(line), low: line.score_low ?? line.score, high: line.score_high ?? line.score,
      front: line.fronts.includes(front), named: names.get(line) ?? null,
      told: `${line.score.toFixed(1)} ${interval(line.score_low, line.score_high)}`,
      lost: known(line.delta) ? `${signed(line.delta)} ${interval(line.delta_low, line.delta_high, signed)}` : "",
      size: `${percent(line.stored_ratio)} stored, ${percent(line.nonzero_ratio)} not zero`, flops: percent(line.flops_ratio),
    })), {}, line => { location.hash = rowLink(line.label); });
  };
  const size = panel === "whole units" ? "the share of parameters that is stored" : "the share of parameters that is not zero";
  const counted = line => panel === "whole units" ? line.stored_ratio : line.nonzero_ratio;
  put("size", size, counted, "size", panel === "whole units" ? WHOLE : SINGLE);
  put("flops", "the share of FLOPs that remains", line => line.flops_ratio, "FLOPs", [...WHOLE, "unstructured"]);
}

function filter() {
  for (const [name, column] of Object.entries(COLUMNS)) {
    const value = filters.elements[name].value;
    const text = DataTable.util.escapeRegex(value);
    // the dense model is what every size is compared with
    board.column(column).search(value ? (name === "group" ? `^(${text}|.*nothing)` : `^${text}$`) : "", {regex: true, smart: false});
    if (name !== "kind" && name !== "group") board.column(column).visible(!value, false);
  }
  board.column(0).search(filters.elements.search.value);
  board.draw();
  if (!overview.hidden) draw();
}
filters.addEventListener("change", filter);
filters.elements.search.addEventListener("input", filter);
filters.addEventListener("submit", event => event.preventDefault());
for (const button of document.querySelectorAll("[data-panel]"))
  button.addEventListener("click", () => { panel = button.dataset.panel; press("[data-panel]", button); draw(); });

function press(all, one) {
  for (const button of document.querySelectorAll(all)) button.setAttribute("aria-pressed", button === one);
}

// ---- claims

for (const button of document.querySelectorAll(".chips button"))
  button.addEventListener("click", () => {
    press(".chips button", button);
    const wanted = button.dataset.verdict;
    for (const line of document.querySelectorAll(".claims li")) line.hidden = wanted && line.dataset.verdict !== wanted;
    for (const list of document.querySelectorAll(".claims ul"))
      list.hidden = list.previousElementSibling.hidden = !list.querySelector("li:not([hidden])");
    for (const card of document.querySelectorAll(".claims article")) card.hidden = !card.querySelector("ul:not([hidden])");
  });

// ---- a row, a run

const tile = (title, value, under) => value === "" ? null : make("div", {class: "card"}, make("dt", {}, title), make("dd", {}, value, [under || ""].flat().map(line => make("small", {}, line))));
const head = cells => make("thead", {}, make("tr", {}, cells.map((cell, i) => make("th", {class: i ? "n" : null}, cell))));
const table = (titles, lines) => make("div", {class: "card scroll"}, make("table", {}, head(titles),
  make("tbody", {}, lines.map(line => make("tr", {}, line.map((cell, i) => make("td", {class: i ? "n" : null}, cell)))))));
const text = value => typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
const pairs = (object, many = "") => make("dl", {class: `pairs ${many}`}, Object.entries(object).map(([name, value]) =>
  make("div", {}, make("dt", {}, name), make("dd", {}, text(value)))));
const flat = object => Object.fromEntries(Object.entries(object).flatMap(([name, value]) =>
  typeof value === "object" && value !== null ? Object.entries(value) : [[name, value]]));
const section = (title, ...content) => content.flat().some(known) ? [make("h2", {}, title), ...content] : null;

function curves(runs) {
  const names = [...new Set(runs.flatMap(run => Object.keys(run.curve.series)))];
  return make("div", {class: "grid"}, names.map(name => make("div", {}, make("h4", {}, name), later("curve", runs.flatMap(run =>
    run.curve.step.map((step, i) => ({step, value: run.curve.series[name]?.[i], seed: run.seed})).filter(point => known(point.value)))))));
}

function plan(metrics) {
  const told = metrics.plan;
  if (!told) return null;
  const {cost, units} = told, kinds = ["own", "shared", "pruned"];
  const tint = Object.fromEntries(kinds.map(kind => [kind, specs.plan.encoding.color.scale.range[specs.plan.encoding.color.scale.domain.indexOf(kind)]]));
  const key = make("ul", {class: "legend"}, kinds.map(kind => make("li", {}, make("i", {class: "dot", style: `--c:${tint[kind]};margin:0`}),
    {own: "weights of its own", shared: "shared: taken from another layer or tower", pruned: "pruned"}[kind])));
  const towers = make("div", {class: "towers"}, Object.entries(cost.towers).sort().reverse().map(([name, tower]) => make("div", {},
    make("b", {}, `${name} tower`), make("small", {}, ` ${count(tower.stored)} of ${count(tower.dense)} parameters stored`),
    make("div", {class: "stack"}, kinds.map(kind => make("span", {style: `width:${100 * tower[kind] / tower.dense}%;background:${tint[kind]}`, title: `${kind}: ${count(tower[kind])}`}))))));
  const layers = Object.entries(units).sort().reverse().flatMap(([tower, components]) => Object.entries(components).map(([component, {kept, own, units: all}]) => {
    const lines = kept.flatMap((left, layer) => [own[layer], left - own[layer], all - left].map((units, place) =>
      ({layer, part: kinds[place], units, share: units / all, place})));
    return make("div", {}, make("h4", {}, `${tower}: ${COMPONENTS[component] || component}, of ${all} units a layer`), later("plan", lines));
  }));
  const masked = cost.masked ? make("p", {class: "note"}, `${count(cost.masked)} single weights of the towers are zero (${percent(cost.masked / cost.dense)}); the results do not say how many of each layer, and every unit stays.`) : null;
  return [key, towers, masked, make("div", {class: "grid plan"}, layers), metrics.note ? make("p", {class: "note"}, metrics.note) : null];
}

function figures(metrics) {
  const parts = [["", metrics.splits], ["before fine-tuning: ", metrics.zero_shot], ...Object.entries(metrics.baselines || {}).map(([name, splits]) => [`${name.replaceAll("_", " ")} answer, no picture: `, splits])];
  const lines = parts.flatMap(([title, splits]) => Object.entries(splits || {}).flatMap(([split, all]) =>
    [[`${title}${split}`, all], ...Object.entries(all.by_type || {}).map(([kind, part]) => [`${title}${split}, ${kind}`, part])]));
  const names = [...new Set(lines.flatMap(([, part]) => Object.keys(part)))].filter(name => name !== "by_type" && name !== "n");
  return lines.length ? table(["split", ...names.map(plain), "samples"], lines.map(([title, part]) =>
    [title, ...names.map(name => known(part[name]) && typeof part[name] === "number" ? (100 * part[name]).toFixed(1) : ""), count(part.n)])) : null;
}

function scores(lines) {
  const parts = lines.flatMap(line => line.splits.map(part => ({...part, early: part.metric.startsWith(EARLY), metric: part.metric.replace(EARLY, ""), title: line.title})));
  const names = [...new Set(parts.map(part => part.metric))];
  const splits = Map.groupBy(parts, part => `${part.title} ${part.split}${part.early ? ", before fine-tuning" : ""}`);
  return parts.length ? table(["mean, per cent", ...names.map(plain), "seeds"], [...splits].map(([title, figures]) => [title,
    ...names.map(name => { const one = figures.find(part => part.metric === name); return one ? [one.mean.toFixed(1), make("small", {}, ` ${interval(one.low, one.high)}`)] : ""; }),
    figures[0].n])) : null;
}

function manifest(run) {
  const told = whole(run.manifest), {config, packages, ...facts} = told;
  const minutes = known(facts.wall_seconds) ? {took: `${(facts.wall_seconds / 60).toFixed(1)} minutes`} : {};
  delete facts.wall_seconds;
  return [pairs({...facts, ...minutes, ...(facts.dirty ? {dirty: "yes: the working tree was changed"} : {})}),
    config && make("details", {}, make("summary", {}, "recipe"), make("pre", {}, JSON.stringify(config, null, 1))),
    packages && make("details", {}, make("summary", {}, "versions"), make("pre", {}, JSON.stringify(packages, null, 1)))];
}

function rowPage(label) {
  const row = values.rows[label];
  if (!row) return missing(label);
  const lines = values.lines.filter(line => line.label === label), first = lines[0];
  const runs = row.runs.filter(run => run.kind !== "pretrain").map(run => ({...run, result: values.runs[run.slug]}));
  const compressed = runs.filter(run => run.kind === "compress"), one = compressed.find(run => run.result)?.result;
  const groups = [["Compression", compressed], ...lines.map(line => [`Fine-tuning: ${line.title}`, runs.filter(run => run.benchmark === line.benchmark)])];
  const chosen = make("select", {"aria-label": "seed"}, compressed.filter(run => run.result).map(run => make("option", {value: run.slug}, `seed ${run.seed}`)));
  const shown = make("div", {}, one && plan(one.metrics));
  chosen.addEventListener("input", () => { forget(shown); shown.replaceChildren(...[plan(values.runs[chosen.value].metrics)].flat().filter(known)); });
  return [
    make("p", {class: "trail"}, make("a", {href: "#leaderboard"}, "← all rows")),
    make("h1", {}, label),
    make("p", {class: "trail"}, first.kind && make("span", {}, first.kind), badge(first.state, first.state === "done" ? "done" : "none"),
      make("span", {}, row.method === "dense" ? "nothing removed" : `${row.removed} · ${row.recovery ? "continued pre-training" : "pruned at once, fine-tuning alone"}${row.task ? ` on ${row.task}` : ""} · in ${row.tables.join(", ")}`)),
    make("dl", {class: "tiles"},
      lines.map(line => tile(`${line.title} ${line.metric}`, known(line.score) ? `${line.score.toFixed(1)}%` : "missing",
        [interval(line.score_low, line.score_high), known(line.delta) ? `${signed(line.delta)} ${interval(line.delta_low, line.delta_high, signed)} to dense` : ""])),
      tile("stored", percent(first.stored_ratio), `${count(first.stored_params)} parameters`), tile("not zero", percent(first.nonzero_ratio)),
      tile("of the towers", percent(first.tower_ratio)), tile("FLOPs", percent(first.flops_ratio)),
      tile("sparsity", percent(first.sparsity), "of the prunable weights")),
    section("Scores by split", scores(lines)),
    section("Its plan", one ? [chosen.length > 1 ? make("p", {}, chosen) : null, shown] : null),
    section("Runs and learning curves", groups.map(([title, members], i) => {
      const done = members.filter(run => run.result).map(run => run.result);
      const body = make("div", {}, make("p", {class: "trail"}, members.map(run => make("span", {}, run.result ? make("a", {href: runLink(run.slug)}, `seed ${run.seed}`) : `seed ${run.seed}`, " ", badge(run.state)))),
        done.length > 1 ? make("ul", {class: "legend"}, done.map((run, i) => make("li", {}, make("i", {class: "dot", style: `--c:${SEEDS[i % SEEDS.length]};margin:0`}), `seed ${run.seed}`))) : null,
        done.some(run => run.curve.step.length) ? curves(done) : make("p", {class: "note"}, done.length ? "Nothing was trained here." : "No result yet."));
      return make("details", {class: "card", open: i === 0 ? "" : null}, make("summary", {}, title), body);
    })),
    section("Options", one && Object.keys(one.metrics.options || {}).length ? make("div", {class: "card"}, pairs(one.metrics.options, "many")) : null),
    one ? section("Manifest of its first run", make("div", {class: "card"}, manifest(one))) : null,
    section("By command", make("pre", {}, `snp run ${label}${values.about.options}\nsnp table ${row.tables[0]}${values.about.options}`)),
  ];
}

function runPage(slug) {
  const run = values.runs[slug];
  if (!run) return missing(slug);
  const labels = Object.keys(values.rows).filter(label => values.rows[label].runs.some(one => one.slug === slug));
  const {splits, zero_shot, baselines, plan: _, options, note, kind, ...costs} = run.metrics;
  return [
    make("p", {class: "trail"}, make("a", {href: "#leaderboard"}, "← all rows"), run.row ? labels.map(label => make("a", {href: rowLink(label)}, label)) : null),
    make("h1", {}, run.name),
    make("p", {class: "trail"}, badge(run.kind, "off"), badge("done"), make("code", {}, slug), run.parent && values.runs[run.parent] ? [" from ", make("a", {href: runLink(run.parent)}, values.runs[run.parent].name)] : null),
    section("What it reached, in per cent", figures(run.metrics)),
    section("What it costs", Object.keys(costs).length ? make("div", {class: "card"}, pairs(flat(costs), "many")) : null),
    section("Its plan", plan(run.metrics)),
    section("Learning curves", run.curve.step.length ? curves([run]) : make("p", {class: "note"}, "Nothing was trained here.")),
    section("Options", options && Object.keys(options).length ? make("div", {class: "card"}, pairs(options, "many")) : null),
    section("Spec", make("div", {class: "card"}, pairs(run.spec, "many"))),
    section("Manifest", make("div", {class: "card"}, manifest(run))),
  ];
}

const missing = name => [make("p", {class: "trail"}, make("a", {href: "#leaderboard"}, "← all rows")), make("h1", {}, "Not here"), make("p", {}, `These results hold nothing named ${name}.`)];

// ---- which page is shown; light and dark

const pages = {row: rowPage, run: runPage};
function route() {
  const [, kind, name] = location.hash.match(/^#\/(row|run)\/(.+)$/) || [];
  forget(detail);
  detail.replaceChildren(...(kind ? pages[kind](decodeURIComponent(name)).flat(9).filter(known) : []));
  const from = overview.hidden;
  overview.hidden = Boolean(kind);
  detail.hidden = !kind;
  if (kind) scrollTo(0, 0);
  else {
    if (from) draw();
    if (from && location.hash) document.querySelector(location.hash)?.scrollIntoView();
  }
}
const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(is) {
  root.classList.toggle("dark", is);
  for (const {again} of [...drawn.values()]) again();
}
dark.addEventListener("change", () => theme(dark.matches));
document.getElementById("theme").addEventListener("click", () => theme(!root.classList.contains("dark")));
addEventListener("hashchange", route);
theme(dark.matches);
route();
filter();
root.dataset.ready = "yes";
