//! Sums of products by letters.

use centuple_graph::{NodeId, Reduction};
use centuple_tensor::Dim;

use super::Importer;
use super::attributes::Call;
use super::dims::volume;
use super::ops::Table;
use super::problem::{Problem, Result, problem};
use super::value::Value;
use crate::file::Element;

pub(super) const OPS: Table = &[("Einsum", einsum)];

/// A tensor and the letters of its dimensions.
struct Term {
    node: NodeId,
    letters: Vec<u8>,
}

fn einsum(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let equation: Vec<u8> = call.text("equation").unwrap_or_default().bytes().filter(|byte| *byte != b' ').collect();
    let text = String::from_utf8_lossy(&equation).into_owned();
    let unknown = || Problem(format!("the equation `{}`", crate::error::shown(&text)));
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left, right.to_owned()),
        None => (text.as_str(), implicit(&text)),
    };
    let sound = |letters: &str| letters.bytes().all(|letter| letter.is_ascii_alphabetic());
    let mut terms = Vec::new();
    for (letters, operand) in left.split(',').zip(call.all()?) {
        let node = importer.node(operand)?;
        let letters = letters.as_bytes().to_vec();
        let repeated = letters.iter().enumerate().any(|(at, letter)| letters[..at].contains(letter));
        if letters.len() != importer.shape_of(node).len() || repeated {
            return Err(unknown());
        }
        terms.push(Term { node, letters });
    }
    if terms.len() != left.split(',').count() || terms.len() != call.operands.len() || !sound(&right) {
        return Err(unknown());
    }
    if !left.split(',').all(sound) {
        return Err(unknown());
    }
    let wanted = right.into_bytes();
    let mut terms = terms.into_iter();
    let mut result = terms.next().ok_or_else(|| problem("it has no operands"))?;
    let rest: Vec<Term> = terms.collect();
    for (at, term) in rest.iter().enumerate() {
        let later = rest.iter().skip(at + 1).flat_map(|term| &term.letters);
        let kept: Vec<u8> = wanted.iter().chain(later).copied().collect();
        result = importer.contract(result, term, &kept)?;
    }
    let result = importer.summed(result, &wanted)?;
    if result.letters.len() != wanted.len() {
        return Err(unknown());
    }
    Ok(vec![Value::Node(importer.arranged(&result, &wanted)?, Element::Float)])
}

/// The letters that occur once, in order.
fn implicit(left: &str) -> String {
    let count = |letter: u8| left.bytes().filter(|other| *other == letter).count();
    let mut letters: Vec<u8> =
        left.bytes().filter(|&letter| letter.is_ascii_alphabetic() && count(letter) == 1).collect();
    letters.sort_unstable();
    String::from_utf8_lossy(&letters).into_owned()
}

impl Importer<'_> {
    /// Sums over the letters that are not kept.
    fn summed(&mut self, term: Term, kept: &[u8]) -> Result<Term> {
        let axes: Vec<usize> = (0..term.letters.len()).filter(|&axis| !kept.contains(&term.letters[axis])).collect();
        if axes.is_empty() {
            return Ok(term);
        }
        let node = self.reduce_node(Reduction::Sum, term.node, &axes, true)?;
        Ok(Term { node, letters: term.letters.into_iter().filter(|letter| kept.contains(letter)).collect() })
    }

    /// The dimensions in the order of `letters`.
    fn arranged(&mut self, term: &Term, letters: &[u8]) -> Result<NodeId> {
        let place = |letter: &u8| term.letters.iter().position(|own| own == letter);
        let perm = letters.iter().map(place).collect::<Option<Vec<usize>>>();
        let perm = perm.ok_or_else(|| problem("a letter of the result that no operand has"))?;
        self.transpose_node(term.node, &perm)
    }

    /// The product of two terms, summed over what both have and nothing behind needs.
    fn contract(&mut self, a: Term, b: &Term, kept: &[u8]) -> Result<Term> {
        let of_both: Vec<u8> = [&a.letters[..], &b.letters[..], kept].concat();
        let a_kept: Vec<u8> =
            of_both.iter().filter(|letter| b.letters.contains(letter) || kept.contains(letter)).copied().collect();
        let b_kept: Vec<u8> =
            of_both.iter().filter(|letter| a.letters.contains(letter) || kept.contains(letter)).copied().collect();
        let a = self.summed(a, &a_kept)?;
        let b = self.summed(Term { node: b.node, letters: b.letters.clone() }, &b_kept)?;
        let shared = |letter: &&u8| b.letters.contains(letter);
        let batch: Vec<u8> = a.letters.iter().filter(shared).filter(|letter| kept.contains(letter)).copied().collect();
        let inner: Vec<u8> = a.letters.iter().filter(shared).filter(|letter| !kept.contains(letter)).copied().collect();
        let rows: Vec<u8> = a.letters.iter().filter(|letter| !b.letters.contains(letter)).copied().collect();
        let columns: Vec<u8> = b.letters.iter().filter(|letter| !a.letters.contains(letter)).copied().collect();
        let sizes = |this: &Self, term: &Term, letters: &[u8]| -> Vec<Dim> {
            let shape = this.shape_of(term.node);
            letters
                .iter()
                .filter_map(|letter| Some(shape[term.letters.iter().position(|own| own == letter)?].clone()))
                .collect()
        };
        let batch_sizes = sizes(self, &a, &batch);
        let (row_sizes, inner_sizes) = (sizes(self, &a, &rows), sizes(self, &a, &inner));
        let column_sizes = sizes(self, &b, &columns);
        let left = self.arranged(&a, &[&batch[..], &rows, &inner].concat())?;
        let right = self.arranged(&b, &[&batch[..], &inner, &columns].concat())?;
        let (m, k, n) = (volume(&row_sizes)?, volume(&inner_sizes)?, volume(&column_sizes)?);
        let left = self.reshape_node(left, &[&batch_sizes[..], &[m, k.clone()]].concat())?;
        let right = self.reshape_node(right, &[&batch_sizes[..], &[k, n]].concat())?;
        let product = self.product(left, right)?;
        let node = self.reshape_node(product, &[batch_sizes, row_sizes, column_sizes].concat())?;
        Ok(Term { node, letters: [batch, rows, columns].concat() })
    }
}
