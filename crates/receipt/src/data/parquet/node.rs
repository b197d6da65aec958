//! Columns as trees, and values put together again from their leaves.

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::schema::types::Type;

use super::leaf::Leaf;
use crate::data::cell::Cell;

/// A column or a part of one.
pub(super) struct Node {
    name: String,
    /// The definition level from which it is not null.
    definition: i16,
    /// Its first leaf among all leaves of the file.
    pub(super) leaf: usize,
    content: Content,
}

enum Content {
    Leaf,
    Record(Vec<Node>),
    List {
        /// The definition level from which there is an element.
        definition: i16,
        /// The repetition level of a further element.
        repetition: i16,
        element: Box<Node>,
    },
}

/// How many leaves a type has.
pub(super) fn leaves_of(field: &Type) -> usize {
    if field.is_primitive() { 1 } else { field.get_fields().iter().map(|child| leaves_of(child)).sum() }
}

impl Node {
    /// The node of a field below the given levels; `leaf` counts on. Errors say what the column holds instead.
    pub(super) fn new(field: &Type, definition: i16, repetition: i16, leaf: &mut usize) -> Result<Node, String> {
        match field.get_basic_info().repetition() {
            Repetition::REQUIRED => Node::present(field, definition, repetition, leaf),
            Repetition::OPTIONAL => Node::present(field, definition + 1, repetition, leaf),
            // A list that is not called one.
            Repetition::REPEATED => {
                let first = *leaf;
                let element = Box::new(Node::present(field, definition + 1, repetition + 1, leaf)?);
                let content = Content::List { definition: definition + 1, repetition: repetition + 1, element };
                Ok(Node { name: field.name().to_owned(), definition, leaf: first, content })
            }
        }
    }

    /// The node of a field that is there at these levels.
    fn present(field: &Type, definition: i16, repetition: i16, leaf: &mut usize) -> Result<Node, String> {
        let first = *leaf;
        let info = field.get_basic_info();
        let content = if field.is_primitive() {
            check_type(field)?;
            *leaf += 1;
            Content::Leaf
        } else if matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE) {
            return Err("holds maps, which is not supported".to_owned());
        } else if info.converted_type() == ConvertedType::LIST || info.logical_type_ref() == Some(&LogicalType::List) {
            let [repeated] = field.get_fields() else { return Err("holds a damaged list".to_owned()) };
            let (definition, repetition) = (definition + 1, repetition + 1);
            let element = match repeated.is_group().then(|| repeated.get_fields()) {
                Some([element]) if !is_element(field, repeated) => Node::new(element, definition, repetition, leaf)?,
                Some(_) | None => Node::present(repeated, definition, repetition, leaf)?,
            };
            Content::List { definition, repetition, element: Box::new(element) }
        } else {
            let children = field.get_fields().iter().map(|child| Node::new(child, definition, repetition, leaf));
            Content::Record(children.collect::<Result<_, _>>()?)
        };
        if *leaf == first {
            return Err("holds objects without fields".to_owned());
        }
        Ok(Node { name: field.name().to_owned(), definition, leaf: first, content })
    }

    /// The next value; `leaves` are those of the column, of which the first is number `base`.
    pub(super) fn next(&self, leaves: &mut [Leaf<'_>], base: usize) -> Result<Cell, String> {
        let first = self.leaf - base;
        if leaves[first].definition()? < self.definition {
            self.skip(leaves, base)?;
            return Ok(Cell::Null);
        }
        match &self.content {
            Content::Leaf => leaves[first].next(),
            Content::Record(children) => {
                let fields = children.iter().map(|child| Ok((child.name.clone(), child.next(leaves, base)?)));
                fields.collect::<Result<_, String>>().map(Cell::Record)
            }
            Content::List { definition, repetition, element } => {
                let mut cells = Vec::new();
                if leaves[first].definition()? < *definition {
                    self.skip(leaves, base)?;
                    return Ok(Cell::List(cells));
                }
                loop {
                    cells.push(element.next(leaves, base)?);
                    if leaves[first].repetition() < Some(*repetition) {
                        return Ok(Cell::List(cells));
                    }
                }
            }
        }
    }

    /// Passes over a null or an empty list, which has one level in each leaf.
    fn skip(&self, leaves: &mut [Leaf<'_>], base: usize) -> Result<(), String> {
        match &self.content {
            Content::Leaf => leaves[self.leaf - base].next().map(drop),
            Content::Record(children) => children.iter().try_for_each(|child| child.skip(leaves, base)),
            Content::List { element, .. } => element.skip(leaves, base),
        }
    }
}

/// Whether the repeated part of a list is its element, as older writers have it, and no wrapper of it.
fn is_element(list: &Type, repeated: &Type) -> bool {
    repeated.name() == "array" || repeated.name() == format!("{}_tuple", list.name())
}

/// Checks that values are texts, numbers or truth values.
fn check_type(field: &Type) -> Result<(), String> {
    let info = field.get_basic_info();
    let logical = matches!(
        info.logical_type_ref(),
        None | Some(LogicalType::String | LogicalType::Enum | LogicalType::Json | LogicalType::Unknown)
            | Some(LogicalType::Integer(_))
    );
    let converted = matches!(
        info.converted_type(),
        ConvertedType::NONE
            | ConvertedType::UTF8
            | ConvertedType::ENUM
            | ConvertedType::JSON
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64
            | ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64
    );
    let physical = !matches!(field.get_physical_type(), Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY);
    if logical && converted && physical {
        return Ok(());
    }
    let kind = info.logical_type_ref().map_or_else(|| format!("{}", info.converted_type()), |kind| format!("{kind:?}"));
    Err(format!(
        "holds values of the type {kind}, where only texts, numbers, truth values and lists of them are supported"
    ))
}
