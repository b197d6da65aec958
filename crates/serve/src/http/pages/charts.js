
/** Seconds between two looks at the metrics, and how many are kept. */
const PERIOD = 2, KEPT = 60;

/** Sums of the samples of each metric over its labels but `le`, whose values are kept apart. */
function readMetrics(text) {
  const sums = new Map(), buckets = new Map();
  for (const line of text.split("\n")) {
    const parts = /^([a-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/i.exec(line);
    if (!parts) continue;
    const [, name, labels = "", value] = parts, edge = /(?:^|,)le="([^"]*)"/.exec(labels);
    if (!edge) {
      sums.set(name, (sums.get(name) ?? 0) + Number(value));
      continue;
    }
    if (!buckets.has(name)) buckets.set(name, new Map());
    const counts = buckets.get(name), bound = edge[1] === "+Inf" ? Infinity : Number(edge[1]);
    counts.set(bound, (counts.get(bound) ?? 0) + Number(value));
  }
  return {sums, buckets, at: performance.now()};
}

/** The value below which a share of what came between two looks lies, as its bucket lets one tell. */
function quantile(share, before, now) {
  const bounds = [...(now?.keys() ?? [])].sort((a, b) => a - b);
  const counts = bounds.map(bound => now.get(bound) - (before?.get(bound) ?? 0));
  const total = counts.at(-1) ?? 0;
  if (total <= 0) return null;
  const wanted = share * total, place = counts.findIndex(count => count >= wanted);
  const below = place > 0 ? counts[place - 1] : 0, low = place > 0 ? bounds[place - 1] : 0;
  if (bounds[place] === Infinity) return low;
  return low + (bounds[place] - low) * (wanted - below) / Math.max(1, counts[place] - below);
}

/** What happened between two looks. */
function point(before, now) {
  const grown = name => (now.sums.get(name) ?? 0) - (before.sums.get(name) ?? 0);
  const seconds = (now.at - before.at) / 1000, count = grown("te_request_duration_count");
  const edges = metrics => metrics.buckets.get("te_request_duration_bucket");
  const slow = quantile(0.95, edges(before), edges(now));
  return {
    at: new Date(),
    rate: grown("te_request_success") / seconds,
    mean: count > 0 ? grown("te_request_duration_sum") / count * 1000 : null,
    slow: slow === null ? null : slow * 1000,
    tokens: grown("te_request_input_length_sum") / seconds,
  };
}

/** A round number that is no less. */
function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map(factor => factor * power).find(round => round >= value);
}

/** A chart of the last minutes that is drawn anew with each look. */
class Chart {
  constructor(figure, {title, unit, lines}) {
    Object.assign(this, {figure, title, unit, lines});
    this.now = el("p", {class: "now"}, "–");
    this.plot = el("div", {class: "chart"});
    this.body = el("tbody");
    const legend = lines.length < 2 ? null : el("ul", {class: "legend"},
      lines.map(({name}, place) => el("li", {}, el("i", {class: place ? "second" : "", "aria-hidden": "true"}), name)));
    const heads = ["Time", ...lines.map(line => `${line.name}, ${unit}`)].map(name => el("th", {scope: "col"}, name));
    const table = el("table", {}, el("caption", {class: "unseen"}, title), el("thead", {}, el("tr", {}, heads)), this.body);
    const scroll = el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, figures`}, table);
    figure.append(el("div", {class: "heading"}, el("h2", {}, title), this.now), this.plot, ...[legend].filter(Boolean),
      el("details", {}, el("summary", {}, "Figures"), scroll));
  }

  draw(points) {
    const {title, unit, lines} = this, last = points.at(-1), shown = last[lines[0].field];
    this.now.replaceChildren(shown === null ? "–" : figure(shown, 3), " ", el("span", {}, unit));
    const values = points.flatMap(point => lines.map(line => point[line.field] ?? 0));
    const top = ceiling(Math.max(...values));
    const x = place => (100 * (place + KEPT - points.length) / (KEPT - 1)).toFixed(2), y = value => (100 - 100 * value / top).toFixed(2);
    const drawing = svg("svg", {viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": this.describe(points)},
      [0, 50, 100].map(height => svg("line", {x1: 0, x2: 100, y1: height, y2: height})),
      lines.flatMap(({field}, place) => this.stretches(points, field).flatMap(stretch => {
        const line = stretch.map(([at, value]) => `${x(at)},${y(value)}`).join(" ");
        const area = place === 0 ? svg("polygon", {points: `${x(stretch[0][0])},100 ${line} ${x(stretch.at(-1)[0])},100`}) : null;
        return [area, svg("polyline", {points: line, class: place ? "second" : null})];
      })));
    const mark = (text, height) => {
      const label = el("span", {class: "y", "aria-hidden": "true"}, text);
      label.style.top = `${height}%`;
      return label;
    };
    const ends = [["2 min ago", "left"], ["now", "right"]].map(([text, side]) => {
      const label = el("span", {class: "x", "aria-hidden": "true"}, text);
      label.style[side] = "0";
      return label;
    });
    this.plot.replaceChildren(drawing, mark(figure(top), 0), mark(figure(top / 2), 50), mark("0", 100), ...ends);
    this.body.replaceChildren(...points.toReversed().map(point => el("tr", {},
      el("th", {scope: "row"}, point.at.toLocaleTimeString()),
      lines.map(({field}) => el("td", {}, point[field] === null ? "–" : figure(point[field], 3))))));
    this.plot.dataset.points = points.length;
  }

  /** Runs of points that have a value; one alone is drawn as a short line. */
  stretches(points, field) {
    const runs = [];
    points.forEach((point, place) => {
      if (point[field] === null) return;
      const run = runs.at(-1);
      if (run && run.at(-1)[0] === place - 1) run.push([place, point[field]]);
      else runs.push([[place - 0.3, point[field]], [place, point[field]]]);
    });
    return runs;
  }

  describe(points) {
    const parts = this.lines.map(({field, name}) => {
      const values = points.map(point => point[field]).filter(value => value !== null);
      if (!values.length) return `${name}: nothing yet`;
      return `${name}: ${figure(values.at(-1), 3)} ${this.unit} at last, ${figure(Math.max(...values), 3)} at most`;
    });
    return `${this.title} of the last two minutes. ${parts.join("; ")}`;
  }
}

/** Looks at the metrics for as long as the page is seen, and draws them. */
function watchMetrics() {
  const throughput = new Chart(byId("throughput"), {title: "Throughput", unit: "requests/s", lines: [{field: "rate", name: "Answered"}]});
  const latency = new Chart(byId("latency"), {
    title: "Latency", unit: "ms",
    lines: [{field: "mean", name: "Mean"}, {field: "slow", name: "95th percentile, from buckets"}],
  });
  const points = [];
  let before = null;
  const look = async () => {
    if (document.hidden) return;
    const reply = await ask("GET", "/metrics").catch(() => null);
    if (reply?.status !== 200) return;
    const now = readMetrics(reply.text);
    if (before) {
      points.push(point(before, now));
      points.splice(0, points.length - KEPT);
      throughput.draw(points);
      latency.draw(points);
    }
    showTotals(now.sums, points.at(-1));
    before = now;
  };
  look();
  setInterval(look, PERIOD * 1000);
}

function showTotals(sums, last) {
  const sum = name => sums.get(name) ?? 0;
  const batches = sum("te_batch_next_size_count");
  const pairs = [
    ["Answered", figure(sum("te_request_success"), 9)],
    ["Failed", figure(sum("te_request_failure"), 9)],
    ["Waiting", figure(sum("te_queue_size"), 9)],
    ["Sequences in a batch", batches ? figure(sum("te_batch_next_size_sum") / batches, 3) : "–"],
    ["Tokens/s", last ? figure(last.tokens, 3) : "–"],
  ];
  byId("totals").replaceChildren(...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
