//! The receipt as plain text for terminals.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::figures::{bytes, change, decimal, grouped, points, printable, significant, times};
use super::{Findings, Layer, Measured, Receipt};

/// Narrower is not attempted.
const NARROWEST: usize = 40;
/// Layers that are listed where there are more.
const LISTED_LAYERS: usize = 10;
/// Widest heading that a precision's name gets.
const HEADING: usize = 10;

impl Receipt {
    /// The receipt as plain text in lines of at most `width` columns (of at least 40), the verdict first.
    #[must_use]
    pub fn table(&self, width: usize) -> String {
        let width = width.max(NARROWEST);
        let Receipt { findings, measured } = self;
        let mut sections = vec![verdict(findings, width), facts(self, width)];
        sections.extend(accuracy(findings, width));
        sections.extend(speed(findings, measured, width));
        sections.extend(memory(findings, measured, width));
        sections.extend(layers(findings, width));
        sections.join("\n")
    }
}

fn verdict(findings: &Findings, width: usize) -> String {
    let headline = findings.verdict.headline().to_uppercase();
    let mut text = headline + "\n" + &wrapped("", &findings.sentence(), width);
    for warning in &findings.warnings {
        text += &wrapped("warning: ", warning, width);
    }
    text
}

fn facts(receipt: &Receipt, width: usize) -> String {
    let Receipt { findings, measured } = receipt;
    let mut facts = vec![
        ("model", findings.model.id.clone()),
        ("task", findings.task.clone()),
        ("precision", findings.precision_words()),
        ("data", findings.dataset_words().unwrap_or_else(|| "none".to_owned())),
    ];
    if !findings.layers.is_empty() {
        facts.push(("layers", findings.rungs()));
    }
    if let Some(chosen) = findings.search.iter().find(|point| point.chosen) {
        let (tried, cost, drop) = (findings.search.len(), decimal(100.0 * chosen.cost, 0), points(chosen.drop));
        facts.push((
            "search",
            format!(
                "{tried} tried; the chosen one takes {cost} % of the f32 time and drops {drop} points on its examples"
            ),
        ));
    } else if !findings.search.is_empty() {
        facts.push(("search", format!("{} tried; none kept to the limits", findings.search.len())));
    }
    if let Some(machine) = &measured.machine {
        facts.push(("machine", format!("{}, {} cores, {}", machine.processor, machine.cores, machine.system)));
    }
    facts.push(("version", findings.version.clone()));
    facts.iter().map(|(name, value)| wrapped(&format!("{name:<11}"), value, width)).collect()
}

fn accuracy(findings: &Findings, width: usize) -> Option<String> {
    let accuracy = findings.accuracy.as_ref()?;
    let chosen = heading(findings);
    let mut grid = Grid::new(&["accuracy", "f32", &chosen, "change", "95 % interval"]);
    let interval = format!("{} to {}", change(accuracy.paired.low), change(accuracy.paired.high));
    grid.row([
        accuracy.metric.clone(),
        points(accuracy.baseline.value),
        points(accuracy.optimised.value),
        change(accuracy.paired.difference),
        interval,
    ]);
    Some(grid.text(width))
}

fn speed(findings: &Findings, measured: &Measured, width: usize) -> Option<String> {
    let pairs = measured.pairs();
    let chosen = format!("{} ms", heading(findings));
    let mut grid = Grid::new(&["speed", "f32 ms", &chosen, "faster", "tokens/s", "threads", "isa"]);
    for pair in &pairs {
        grid.row([
            pair.float.shape.to_string(),
            significant(pair.float.median_ms),
            significant(pair.optimised.median_ms),
            times(pair.ratio()),
            grouped(pair.optimised.tokens_per_second),
            pair.float.threads.to_string(),
            shortened(&printable(&pair.float.isa), 12),
        ]);
    }
    (!pairs.is_empty()).then(|| grid.text(width))
}

fn memory(findings: &Findings, measured: &Measured, width: usize) -> Option<String> {
    let rows = measured.sizes.rows();
    let chosen = heading(findings);
    let mut grid = Grid::new(&["memory", "f32", &chosen, "smaller"]);
    for (name, size) in &rows {
        grid.row([(*name).to_owned(), bytes(size.f32), bytes(size.optimised), times(size.ratio())]);
    }
    (!rows.is_empty()).then(|| grid.text(width))
}

/// Every layer of a small model; of a large one those that were promoted and those with the largest error.
fn layers(findings: &Findings, width: usize) -> Option<String> {
    let mut chosen: Vec<(usize, &Layer)> = findings.layers.iter().enumerate().collect();
    chosen.sort_by(|(_, a), (_, b)| {
        let sqnr = |layer: &Layer| layer.sqnr_db.unwrap_or(f64::INFINITY);
        b.promoted_from.is_some().cmp(&a.promoted_from.is_some()).then(sqnr(a).total_cmp(&sqnr(b)))
    });
    let left_out = chosen.len().saturating_sub(LISTED_LAYERS);
    chosen.truncate(LISTED_LAYERS);
    chosen.sort_by_key(|(place, _)| *place);
    let title = if left_out > 0 { "layers that stand out" } else { "layers" };
    let mut grid = Grid::new(&[title, "shape", "runs as", "was", "SQNR dB", "damage"]);
    for (_, layer) in &chosen {
        grid.row([
            layer.name.clone(),
            format!("{}x{}", layer.shape[0], layer.shape[1]),
            layer.rung.name().to_owned(),
            layer.promoted_from.map_or("", |rung| rung.name()).to_owned(),
            layer.sqnr_db.map_or_else(|| "exact".to_owned(), |sqnr| decimal(sqnr, 1)),
            significant(layer.damage),
        ]);
    }
    let more = if left_out > 0 { format!("and {left_out} more\n") } else { String::new() };
    (!chosen.is_empty()).then(|| grid.text(width) + &more)
}

fn heading(findings: &Findings) -> String {
    shortened(&printable(&findings.precision.chosen), HEADING)
}

/// Rows under headings: the first column left-aligned and as wide as the line leaves it, the others right-aligned.
struct Grid {
    rows: Vec<Vec<String>>,
}

impl Grid {
    fn new(headings: &[&str]) -> Grid {
        Grid { rows: vec![headings.iter().map(|heading| printable(heading)).collect()] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The lines. Columns that don't fit beside a first one of a quarter of the line are left out from the right.
    fn text(&self, width: usize) -> String {
        let widest = |column: usize| self.rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(widest).collect();
        let mut columns = widths.len();
        let taken = |columns: usize| widths[1..columns].iter().map(|width| width + 2).sum::<usize>();
        while columns > 1 && taken(columns) + widths[0].min(width / 4) > width {
            columns -= 1;
        }
        let first = widths[0].min(width - taken(columns));
        let mut text = String::new();
        for row in &self.rows {
            let name = shortened(&row[0], first);
            let mut line = name.clone() + &" ".repeat(first - name.width());
            for (cell, width) in row.iter().zip(&widths).take(columns).skip(1) {
                line += &" ".repeat(2 + width - cell.width());
                line += cell;
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// `text` in at most `width` columns, its middle left out if need be: names of layers differ at the end.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let take = |chars: &mut dyn Iterator<Item = char>, room: usize| {
        let mut used = 0;
        let fits = |c: &char| {
            used += c.width().unwrap_or(0);
            used <= room
        };
        chars.take_while(fits).collect::<Vec<char>>()
    };
    let tail = take(&mut text.chars().rev(), room - room / 3);
    let head = take(&mut text.chars(), room / 3);
    let ellipsis = if width > 0 { "…" } else { "" };
    head.into_iter().collect::<String>() + ellipsis + &tail.into_iter().rev().collect::<String>()
}

/// `label` and `text`, broken between words, further lines indented to where the text began.
fn wrapped(label: &str, text: &str, width: usize) -> String {
    let indent = label.width();
    let (mut lines, mut line) = (String::from(label), 0);
    for word in printable(text).split_whitespace() {
        let word = shortened(word, width - indent);
        if line > 0 && indent + line + 1 + word.width() > width {
            lines = lines + "\n" + &" ".repeat(indent);
            line = 0;
        } else if line > 0 {
            lines.push(' ');
            line += 1;
        }
        line += word.width();
        lines += &word;
    }
    lines.truncate(lines.trim_end().len());
    lines + "\n"
}
