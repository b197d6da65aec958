//! Examples from the rows of a table whose shape is known.

use super::cell::{Cell, take};
use super::error::{Fault, NAMES_FLAG, quoted};
use super::example::{Class, Example, Label, Span};
use super::shape::{Asked, Shape, Texts};
use super::table::{Row, Table};
use super::tags::tagged_spans;

/// Where in a row something is wrong, as the index of the column, and what.
type Wrong = (usize, String);

/// The examples of a table. `names` are those of the classes, empty if they are not known.
pub(crate) fn examples(table: Table, shape: Shape, names: &[String]) -> Result<Vec<Example>, Fault> {
    let columns = table.columns;
    let one = |mut row: Row| {
        let position = row.position;
        example(&mut row, shape, names).map_err(|(column, reason)| Fault::value(position, &columns[column], reason))
    };
    table.rows.into_iter().map(one).collect()
}

fn example(row: &mut Row, shape: Shape, names: &[String]) -> Result<Example, Wrong> {
    match shape {
        Shape::Plain { texts } => {
            let (inputs, pair) = read_texts(row, texts)?;
            Ok(Example::Plain { inputs, pair })
        }
        Shape::Text { texts, label } => {
            let (inputs, pair) = read_texts(row, texts)?;
            Ok(Example::Text { inputs, pair, label: read(row, label, |cell| read_label(cell, names))? })
        }
        Shape::Similarity { texts, score } => {
            let (first, second) = read_texts(row, texts)?;
            let one = || (texts.first, "similarity needs two texts: `[first, second]`, or a column each".to_owned());
            let second = second.ok_or_else(one)?;
            Ok(Example::Similarity { first, second, score: read(row, score, |cell| cell.number())? })
        }
        Shape::Spans { inputs, entities } => {
            let inputs = read(row, inputs, Cell::text)?;
            let length = inputs.chars().count();
            let spans = read(row, entities, |cell| read_spans(cell, length, names))?;
            Ok(Example::Entities { inputs, spans })
        }
        Shape::Tags { tokens, tags } => {
            let words = read(row, tokens, texts)?;
            let spans = read(row, tags, |cell| read_tags(cell, &words, names))?;
            Ok(Example::Entities { inputs: words.join(" "), spans })
        }
        Shape::Answer { asked, answers } => {
            let (question, context) = match asked {
                Asked::Columns { question, context } => {
                    (read(row, question, Cell::text)?, read(row, context, Cell::text)?)
                }
                Asked::Inputs(inputs) => read(row, inputs, read_question)?,
            };
            Ok(Example::Answer { question, context, answers: read(row, answers, read_answers)? })
        }
    }
}

/// Takes a cell out of a row and reads it.
fn read<T>(row: &mut Row, column: usize, reader: impl FnOnce(Cell) -> Result<T, String>) -> Result<T, Wrong> {
    reader(row.take(column)).map_err(|reason| (column, reason))
}

/// One text or two, from two columns or from one.
fn read_texts(row: &mut Row, texts: Texts) -> Result<(String, Option<String>), Wrong> {
    match texts.second {
        None => read(row, texts.first, read_inputs),
        Some(second) => {
            let first = read(row, texts.first, Cell::text)?;
            Ok((first, Some(read(row, second, only_text)?)))
        }
    }
}

/// A text, `[first, second]`, `{"text", "text_pair"}` or `{"source_sentence", "sentences"}` with one sentence.
fn read_inputs(cell: Cell) -> Result<(String, Option<String>), String> {
    match cell {
        Cell::List(cells) => match <[Cell; 2]>::try_from(cells) {
            Ok([first, second]) => Ok((first.text()?, Some(second.text()?))),
            Err(cells) => Err(format!("a list of texts is a pair here, and this one has {}", cells.len())),
        },
        Cell::Record(mut fields) => {
            let (text, pair) = (take(&mut fields, "text"), take(&mut fields, "text_pair"));
            let (source, sentences) = (take(&mut fields, "source_sentence"), take(&mut fields, "sentences"));
            let names: Vec<&String> = fields.iter().map(|(name, _)| name).collect();
            match (text, pair, source, sentences, names.as_slice()) {
                (Some(text), None | Some(Cell::Null), None, None, []) => Ok((text.text()?, None)),
                (Some(text), Some(pair), None, None, []) => Ok((text.text()?, Some(pair.text()?))),
                (None, None, Some(source), Some(sentences), []) => Ok((source.text()?, Some(only_text(sentences)?))),
                (.., []) => {
                    Err("must have `text` and maybe `text_pair`, or `source_sentence` and `sentences`".to_owned())
                }
                (.., names) => Err(format!("has the unknown keys {}", quoted(names))),
            }
        }
        Cell::Null | Cell::Text(_) | Cell::Integer(_) | Cell::Number(_) | Cell::Flag(_) => Ok((cell.text()?, None)),
    }
}

/// A text, or a list of exactly one.
fn only_text(cell: Cell) -> Result<String, String> {
    match cell {
        Cell::List(cells) => match <[Cell; 1]>::try_from(cells) {
            Ok([text]) => text.text(),
            Err(cells) => Err(format!("must be one text, and is a list of {}; give each pair a row", cells.len())),
        },
        Cell::Null | Cell::Text(_) | Cell::Integer(_) | Cell::Number(_) | Cell::Flag(_) | Cell::Record(_) => {
            cell.text()
        }
    }
}

fn read_question(cell: Cell) -> Result<(String, String), String> {
    let Cell::Record(mut fields) = cell else {
        return Err(format!("must be an object with `question` and `context`, and is {}", cell.described()));
    };
    match (take(&mut fields, "question"), take(&mut fields, "context")) {
        (Some(question), Some(context)) => Ok((question.text()?, context.text()?)),
        (None, _) | (_, None) => Err("must have `question` and `context`".to_owned()),
    }
}

fn texts(cell: Cell) -> Result<Vec<String>, String> {
    cell.list()?.into_iter().map(Cell::text).collect()
}

fn read_label(cell: Cell, names: &[String]) -> Result<Label, String> {
    let Cell::List(cells) = cell else { return class(cell, names).map(Label::One) };
    let mut classes = Vec::with_capacity(cells.len());
    for cell in cells {
        let described = cell.described();
        let class = class(cell, names)?;
        if classes.contains(&class) {
            return Err(format!("has {described} twice; give each label once"));
        }
        classes.push(class);
    }
    Ok(Label::Many(classes))
}

fn class(cell: Cell, names: &[String]) -> Result<Class, String> {
    let number = match &cell {
        Cell::Null => return Err("has no label; leave the row out".to_owned()),
        Cell::Text(text) if text.is_empty() => return Err("has no label; leave the row out".to_owned()),
        Cell::Integer(-1) => return Err("is -1, which stands for no label; use a part that has labels".to_owned()),
        Cell::Text(_) => None,
        Cell::Integer(number) => u32::try_from(*number).ok(),
        // Some tools store whole numbers as fractions once a column has held gaps.
        Cell::Number(number) if number.fract() == 0.0 && (0.0..4e9).contains(number) => Some(*number as u32),
        Cell::Number(_) | Cell::List(_) | Cell::Record(_) => None,
        Cell::Flag(flag) => Some(u32::from(*flag)),
    };
    match (number, cell) {
        (Some(id), _) if names.is_empty() || (id as usize) < names.len() => Ok(Class::Id(id)),
        (Some(id), _) => Err(format!("is {id}, and there are names for {} classes only", names.len())),
        (None, Cell::Text(name)) => Ok(Class::Name(name)),
        (None, other) => Err(format!("must be a name or a whole number of 0 or more, and is {}", other.described())),
    }
}

/// A class by name.
fn class_name(cell: Cell, names: &[String]) -> Result<String, String> {
    match class(cell, names)? {
        Class::Name(name) => Ok(name),
        Class::Id(id) => names.get(id as usize).cloned().ok_or_else(|| {
            format!("holds numbers of classes, such as {id}, without names; give them in order with {NAMES_FLAG}")
        }),
    }
}

/// Tags of words, as spans of characters of the words with a space between them.
fn read_tags(cell: Cell, words: &[String], names: &[String]) -> Result<Vec<Span>, String> {
    let tags = cell.list()?.into_iter().map(|cell| class_name(cell, names)).collect::<Result<Vec<_>, _>>()?;
    if words.is_empty() || tags.len() != words.len() {
        return Err(format!("has {} tags for {} words; each word needs one", tags.len(), words.len()));
    }
    let mut ends = Vec::with_capacity(words.len());
    let mut end = 0;
    for word in words {
        let length = word.chars().count();
        ends.push((end, end + length));
        end += length + 1;
    }
    let spans = tagged_spans(&tags).map_err(|error| error.to_string())?;
    let characters = |Span { start, end, label }: Span| Span { start: ends[start].0, end: ends[end - 1].1, label };
    let spans: Vec<Span> = spans.into_iter().map(characters).collect();
    match spans.iter().find(|span| span.start >= span.end) {
        Some(span) => Err(format!("tags an empty word as {}", span.label)),
        None => Ok(spans),
    }
}

/// Spans of characters: a list of objects, or an object of lists.
fn read_spans(cell: Cell, length: usize, names: &[String]) -> Result<Vec<Span>, String> {
    let fields = match cell {
        Cell::Record(fields) => rows_of(fields)?,
        Cell::Null | Cell::Text(_) | Cell::Integer(_) | Cell::Number(_) | Cell::Flag(_) | Cell::List(_) => {
            cell.list()?.into_iter().map(fields_of).collect::<Result<Vec<_>, _>>()?
        }
    };
    fields.into_iter().map(|fields| read_span(fields, length, names)).collect()
}

fn fields_of(cell: Cell) -> Result<Vec<(String, Cell)>, String> {
    match cell {
        Cell::Record(fields) => Ok(fields),
        Cell::Null | Cell::Text(_) | Cell::Integer(_) | Cell::Number(_) | Cell::Flag(_) | Cell::List(_) => {
            Err(format!("an entity must be an object with `start`, `end` and `label`, and is {}", cell.described()))
        }
    }
}

/// An object of lists as a list of objects.
fn rows_of(fields: Vec<(String, Cell)>) -> Result<Vec<Vec<(String, Cell)>>, String> {
    let mut rows: Vec<Vec<(String, Cell)>> = Vec::new();
    for (index, (name, cell)) in fields.into_iter().enumerate() {
        let cells = cell.list().map_err(|reason| format!("`{name}` {reason}"))?;
        if index == 0 {
            rows.resize_with(cells.len(), Vec::new);
        }
        if cells.len() != rows.len() {
            return Err(format!("`{name}` has {} elements, where another list has {}", cells.len(), rows.len()));
        }
        rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push((name.clone(), cell)));
    }
    Ok(rows)
}

fn read_span(mut fields: Vec<(String, Cell)>, length: usize, names: &[String]) -> Result<Span, String> {
    let mut field = |names: &[&str]| {
        let found = names.iter().find_map(|name| take(&mut fields, name));
        found.ok_or_else(|| format!("an entity has no `{}`; it needs `start`, `end` and `label`", names[0]))
    };
    let index = |name: &str, cell: Cell| cell.index().map_err(|reason| format!("`{name}` of an entity {reason}"));
    let (start, end) = (index("start", field(&["start"])?)?, index("end", field(&["end"])?)?);
    let label = class_name(field(&["label", "entity_group", "entity", "type"])?, names)?;
    if start < end && end <= length {
        return Ok(Span { start, end, label });
    }
    Err(format!("an entity stands at {start}..{end}, outside of the text's {length} characters or without any"))
}

/// A text, a list of texts, or as SQuAD has them: objects with `text`, or an object whose `text` is a list.
fn read_answers(cell: Cell) -> Result<Vec<String>, String> {
    let answers = match cell {
        Cell::Record(mut fields) => match take(&mut fields, "text") {
            Some(Cell::List(cells)) => cells.into_iter().map(Cell::text).collect(),
            Some(text) => text.text().map(|text| vec![text]),
            None => Err("must have `text`".to_owned()),
        },
        Cell::List(cells) => cells.into_iter().map(answer).collect(),
        Cell::Null | Cell::Text(_) | Cell::Integer(_) | Cell::Number(_) | Cell::Flag(_) => {
            cell.text().map(|text| vec![text])
        }
    }?;
    if answers.is_empty() {
        return Err("has no answer; questions without one cannot be scored, leave them out".to_owned());
    }
    Ok(answers)
}

fn answer(cell: Cell) -> Result<String, String> {
    match cell {
        Cell::Record(mut fields) => take(&mut fields, "text").ok_or("an answer must have `text`")?.text(),
        Cell::Null | Cell::Text(_) | Cell::Integer(_) | Cell::Number(_) | Cell::Flag(_) | Cell::List(_) => cell.text(),
    }
}
