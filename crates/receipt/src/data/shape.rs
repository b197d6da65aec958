//! What the examples of a table are, from its columns.

use super::cell::Cell;
use super::columns::{Columns, IGNORED, PAIRS, Role};
use super::error::{KIND_FLAG, quoted};
use super::example::Kind;
use super::table::Table;

/// Where the parts of each example stand, as indices of columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// [`Kind::Text`].
    Text { texts: Texts, label: usize },
    /// [`Kind::Similarity`].
    Similarity { texts: Texts, score: usize },
    /// [`Kind::Entities`], as spans of characters.
    Spans { inputs: usize, entities: usize },
    /// [`Kind::Entities`], as tags of words.
    Tags { tokens: usize, tags: usize },
    /// [`Kind::Answer`].
    Answer { asked: Asked, answers: usize },
    /// [`Kind::Plain`].
    Plain { texts: Texts },
}

/// One text, two in two columns, or two in one column as the server takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Texts {
    pub(crate) first: usize,
    pub(crate) second: Option<usize>,
}

/// A question with its context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Asked {
    /// In two columns.
    Columns { question: usize, context: usize },
    /// In one, as the server takes them.
    Inputs(usize),
}

impl Shape {
    /// The shape of a table; `kind` says what its examples must be, where that is known. Errors are reasons.
    pub(crate) fn of(table: &Table, columns: &Columns, kind: Option<Kind>) -> Result<Shape, String> {
        let resolver = Resolver { table, columns };
        match kind {
            Some(kind) => resolver.build(kind),
            None => resolver.guess(),
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Shape::Text { .. } => Kind::Text,
            Shape::Similarity { .. } => Kind::Similarity,
            Shape::Spans { .. } | Shape::Tags { .. } => Kind::Entities,
            Shape::Answer { .. } => Kind::Answer,
            Shape::Plain { .. } => Kind::Plain,
        }
    }

    /// The column whose numbers may stand for names of classes.
    pub(crate) fn classes(self) -> Option<usize> {
        match self {
            Shape::Text { label, .. } => Some(label),
            Shape::Spans { entities, .. } => Some(entities),
            Shape::Tags { tags, .. } => Some(tags),
            Shape::Similarity { .. } | Shape::Answer { .. } | Shape::Plain { .. } => None,
        }
    }
}

struct Resolver<'a> {
    table: &'a Table,
    columns: &'a Columns,
}

/// A column, none, or why it can't be told.
type Found<T> = Result<Option<T>, String>;

impl Resolver<'_> {
    /// The only kind that the columns can be, or the kinds whose label was called by name.
    fn guess(&self) -> Result<Shape, String> {
        let called = |roles: &[Role]| roles.iter().any(|role| self.columns.get(*role).is_some());
        let fits: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| self.fits(*kind)).collect();
        let named: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| called(labels(*kind))).collect();
        match (named.as_slice(), fits.as_slice()) {
            ([kind], _) | ([], [kind]) => self.build(*kind),
            ([], []) => self.plain(),
            ([], kinds) | (kinds, _) => {
                let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                Err(format!("the examples could be any of {}; say which with {KIND_FLAG}", quoted(&kinds)))
            }
        }
    }

    /// Whether there are columns for the labels of a kind, and for what they label.
    fn fits(&self, kind: Kind) -> bool {
        let found = |role: Role| !matches!(self.column(role), Ok(None));
        let texts = || !matches!(self.texts(), Ok(None));
        match kind {
            Kind::Text => found(Role::Label) && texts() && !self.label_is_score(),
            Kind::Similarity => (found(Role::Score) && texts()) || self.label_is_score(),
            Kind::Entities => {
                (found(Role::Tokens) && found(Role::Tags)) || (found(Role::Entities) && found(Role::Inputs))
            }
            Kind::Answer => {
                found(Role::Answers) && (found(Role::Question) && found(Role::Context) || self.inputs_are_objects())
            }
            Kind::Plain => false,
        }
    }

    fn build(&self, kind: Kind) -> Result<Shape, String> {
        match kind {
            Kind::Text => Ok(Shape::Text { label: self.required(Role::Label)?, texts: self.required_texts()? }),
            Kind::Similarity => self.similarity(),
            Kind::Entities => match (self.column(Role::Entities)?, self.column(Role::Tokens)) {
                (Some(_), Ok(Some(_))) if self.columns.entities.is_none() => self.tags(),
                (Some(entities), _) => Ok(Shape::Spans { entities, inputs: self.required(Role::Inputs)? }),
                (None, Ok(None)) => Err(self.missing(Role::Entities)),
                (None, _) => self.tags(),
            },
            Kind::Answer => {
                let answers = self.required(Role::Answers)?;
                let asked = match (self.column(Role::Question)?, self.column(Role::Context)?) {
                    (None, None) => Asked::Inputs(self.required(Role::Inputs)?),
                    (Some(question), Some(context)) => Asked::Columns { question, context },
                    (None, Some(_)) => return Err(self.missing(Role::Question)),
                    (Some(_), None) => return Err(self.missing(Role::Context)),
                };
                Ok(Shape::Answer { asked, answers })
            }
            Kind::Plain => Ok(Shape::Plain { texts: self.required_texts()? }),
        }
    }

    fn tags(&self) -> Result<Shape, String> {
        Ok(Shape::Tags { tokens: self.required(Role::Tokens)?, tags: self.required(Role::Tags)? })
    }

    fn similarity(&self) -> Result<Shape, String> {
        let texts = self.required_texts()?;
        let first = self.table.rows.first().and_then(|row| row.cell(texts.first));
        if texts.second.is_none() && matches!(first, Some(Cell::Text(_))) {
            return Err(self.missing(Role::Pair));
        }
        let score = match self.column(Role::Score)? {
            None if self.label_is_score() => self.required(Role::Label)?,
            None => return Err(self.missing(Role::Score)),
            Some(score) => score,
        };
        Ok(Shape::Similarity { texts, score })
    }

    /// Texts alone, as long as no other column could be labels that are not recognised.
    fn plain(&self) -> Result<Shape, String> {
        let texts = self.required_texts()?;
        let others = self.table.columns.iter().enumerate().filter(|(index, name)| {
            texts.first != *index && texts.second != Some(*index) && !IGNORED.contains(&name.as_str())
        });
        let others: Vec<&String> = others.map(|(_, name)| name).collect();
        if others.is_empty() {
            return Ok(Shape::Plain { texts });
        }
        Err(format!(
            "no column is known to hold labels; name it with {}, or with score, answers, entities or tags instead of \
             label, or say that the texts are to be used without labels with {KIND_FLAG} {}",
            Role::Label.flag(),
            Kind::Plain
        ))
    }

    /// Some data sets for similarity call their scores labels: a column of fractions beside two texts.
    fn label_is_score(&self) -> bool {
        let (Ok(None), Ok(Some(label))) = (self.column(Role::Score), self.column(Role::Label)) else { return false };
        let pair = matches!(self.texts(), Ok(Some(Texts { second: Some(_), .. })));
        let mut cells = self.table.rows.iter().map(|row| row.cell(label).unwrap_or(&Cell::Null));
        pair && cells.clone().all(is_number) && cells.any(is_fraction)
    }

    /// Whether the inputs are several texts in one, as the server takes them.
    fn inputs_are_objects(&self) -> bool {
        let Ok(Some(inputs)) = self.column(Role::Inputs) else { return false };
        let first = self.table.rows.first().and_then(|row| row.cell(inputs));
        matches!(first, Some(Cell::Record(_)))
    }

    fn required(&self, role: Role) -> Result<usize, String> {
        self.column(role)?.ok_or_else(|| self.missing(role))
    }

    fn missing(&self, role: Role) -> String {
        let pairs = || PAIRS.map(|(_, second)| second).to_vec();
        let known = if role == Role::Pair { pairs() } else { role.known().to_vec() };
        format!("no column holds the {role} ({}); name it with {}", quoted(&known), role.flag())
    }

    fn column(&self, role: Role) -> Found<usize> {
        let matches: Vec<usize> = match self.columns.get(role) {
            Some(name) => match self.named(name).as_slice() {
                [] => return Err(format!("there is no column `{name}` for the {role}")),
                found => found.to_vec(),
            },
            None => role.known().iter().flat_map(|name| self.named(name)).collect(),
        };
        self.only(role, &matches)
    }

    /// The columns of a name.
    fn named(&self, name: &str) -> Vec<usize> {
        let columns = self.table.columns.iter().enumerate();
        columns.filter(|(_, column)| *column == name).map(|(index, _)| index).collect()
    }

    /// The one column among those that could have a role.
    fn only(&self, role: Role, matches: &[usize]) -> Found<usize> {
        match *matches {
            [] => Ok(None),
            [column] => match self.table.unreadable.iter().find(|(index, _)| *index == column) {
                Some((_, reason)) => Err(format!("column `{}` {reason}", self.table.columns[column])),
                None => Ok(Some(column)),
            },
            [..] => {
                let names: Vec<&String> = matches.iter().map(|index| &self.table.columns[*index]).collect();
                let names = quoted(&names);
                Err(format!("several columns could be the {role}: {names}; choose one with {}", role.flag()))
            }
        }
    }

    fn required_texts(&self) -> Result<Texts, String> {
        self.texts()?.ok_or_else(|| self.missing(Role::Inputs))
    }

    /// The columns of the text or texts: those called by name, else the only ones with well known names.
    fn texts(&self) -> Found<Texts> {
        let pair = self.column(Role::Pair)?;
        if self.columns.inputs.is_some() || pair.is_some() {
            let first = self.column(Role::Inputs)?;
            return Ok(first.map(|first| Texts { first, second: pair }));
        }
        let both = |(first, second): &(&str, &str)| {
            let (firsts, seconds) = (self.named(first), self.named(second));
            firsts.into_iter().flat_map(move |first| seconds.clone().into_iter().map(move |second| (first, second)))
        };
        let pairs: Vec<(usize, usize)> = PAIRS.iter().flat_map(both).collect();
        let singles = Role::Inputs.known().iter().flat_map(|name| self.named(name));
        let alone = singles.filter(|single| pairs.iter().all(|(first, second)| single != first && single != second));
        let firsts: Vec<usize> = pairs.iter().map(|(first, _)| *first).chain(alone).collect();
        let first = self.only(Role::Inputs, &firsts)?;
        let second = pairs.first().map(|(_, second)| *second);
        let second = second.map(|second| self.only(Role::Pair, &[second])).transpose()?.flatten();
        Ok(first.map(|first| Texts { first, second }))
    }
}

/// The roles whose columns only a kind has.
fn labels(kind: Kind) -> &'static [Role] {
    match kind {
        Kind::Text => &[Role::Label],
        Kind::Similarity => &[Role::Score],
        Kind::Entities => &[Role::Entities, Role::Tokens, Role::Tags],
        Kind::Answer => &[Role::Answers, Role::Context, Role::Question],
        Kind::Plain => &[],
    }
}

fn is_number(cell: &Cell) -> bool {
    match cell {
        Cell::Integer(_) | Cell::Number(_) => true,
        Cell::Text(text) => text.trim().parse::<f64>().is_ok(),
        Cell::Null | Cell::Flag(_) | Cell::List(_) | Cell::Record(_) => false,
    }
}

/// Whether a number is stored as a fraction, even if it is whole.
fn is_fraction(cell: &Cell) -> bool {
    match cell {
        Cell::Number(_) => true,
        Cell::Text(text) => text.contains(['.', 'e', 'E']),
        Cell::Null | Cell::Integer(_) | Cell::Flag(_) | Cell::List(_) | Cell::Record(_) => false,
    }
}
