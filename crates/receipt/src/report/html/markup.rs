//! A tree of elements that is well-formed by construction: all text and attributes are escaped when it is written.

use std::fmt::{self, Write};

use super::super::figures::printable;

/// An element.
#[derive(Clone, Debug)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Element(Element),
    Text(String),
    /// Written as it is.
    Style(&'static str),
}

/// An element without attributes or content.
pub(super) fn element(name: &'static str) -> Element {
    Element { name, attributes: Vec::new(), children: Vec::new() }
}

impl Element {
    /// Adds an attribute.
    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Element {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// Sets the class, instead of one that it may have.
    pub(super) fn class(mut self, class: impl ToString) -> Element {
        self.attributes.retain(|(name, _)| *name != "class");
        self.with("class", class)
    }

    /// Appends text.
    pub(super) fn text(mut self, text: impl ToString) -> Element {
        self.children.push(Node::Text(text.to_string()));
        self
    }

    /// Appends an element.
    pub(super) fn child(mut self, child: Element) -> Element {
        self.children.push(Node::Element(child));
        self
    }

    /// Appends elements; an `Option` is one or none.
    pub(super) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.children.extend(children.into_iter().map(Node::Element));
        self
    }

    /// Appends a style sheet, which must hold no `<`.
    pub(super) fn style(mut self, sheet: &'static str) -> Element {
        self.children.push(Node::Style(sheet));
        self
    }
}

/// Elements that have no content and no closing tag.
const VOID: [&str; 2] = ["meta", "br"];
/// Elements after which a new line begins.
const BLOCKS: [&str; 24] = [
    "meta", "title", "style", "head", "header", "main", "section", "footer", "div", "p", "h1", "h2", "ul", "li", "dl",
    "dd", "table", "tr", "thead", "tbody", "details", "svg", "g", "figure",
];

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}=\"")?;
            escape(f, value)?;
            f.write_char('"')?;
        }
        if VOID.contains(&self.name) {
            return f.write_str(" />\n");
        }
        f.write_char('>')?;
        for child in &self.children {
            match child {
                Node::Element(element) => element.fmt(f)?,
                Node::Text(text) => escape(f, text)?,
                Node::Style(sheet) => f.write_str(sheet)?,
            }
        }
        write!(f, "</{}>", self.name)?;
        if BLOCKS.contains(&self.name) { f.write_char('\n') } else { Ok(()) }
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in printable(text).chars() {
        match c {
            '&' => f.write_str("&amp;")?,
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '"' => f.write_str("&quot;")?,
            '\'' => f.write_str("&#39;")?,
            _ => f.write_char(c)?,
        }
    }
    Ok(())
}
