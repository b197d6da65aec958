//! Arithmetic on sizes that are known when a batch arrives.

use centuple_tensor::{Bindings, Dim, Shape};

use super::problem::{Problem, Result, problem};

/// Sizes that what is said of a dimension is tried on.
const SEQUENCES: [usize; 5] = [1, 2, 3, 7, 32];
const LENGTHS: [usize; 10] = [1, 2, 3, 5, 8, 17, 64, 127, 512, 8192];
/// Characters of the longest dimension; real ones have a few terms.
const LONGEST: usize = 400;

/// An integer as a dimension.
pub(super) fn of_integer(value: i64) -> Dim {
    let size = Dim::from(usize::try_from(value.unsigned_abs()).unwrap_or(usize::MAX));
    if value < 0 { Dim::default() - size } else { size }
}

/// The integer, where no symbol is left.
pub(super) fn to_integer(dim: &Dim) -> Option<i64> {
    let size = |dim: &Dim| dim.constant().and_then(|value| i64::try_from(value).ok());
    size(dim).or_else(|| size(&(Dim::default() - dim.clone())).map(|value| -value))
}

/// The values of a dimension for batches of many sizes.
fn samples(dim: &Dim) -> impl Iterator<Item = Option<i64>> {
    let negated = Dim::default() - dim.clone();
    SEQUENCES.iter().flat_map(|&sequences| LENGTHS.map(|sequence| (sequences, sequence))).map(
        move |(sequences, sequence)| {
            let bindings = Bindings { sequences, sequence, tokens: sequences * sequence, ..Bindings::default() };
            let value = |dim: &Dim| dim.evaluate(&bindings).and_then(|value| i64::try_from(value).ok());
            value(dim).or_else(|| value(&negated).map(|value| -value))
        },
    )
}

/// Whether a dimension is never negative.
pub(super) fn never_negative(dim: &Dim) -> bool {
    samples(dim).all(|value| value.is_some_and(|value| value >= 0))
}

/// The longest sequence for which all places lie in a dimension of `size`; `None` where a single token's don't.
pub(super) fn longest(places: &[Dim], size: usize) -> Option<usize> {
    let inside = |sequence: usize| {
        let bindings = Bindings { sequences: 1, sequence, tokens: sequence, ..Bindings::default() };
        places.iter().all(|place| place.evaluate(&bindings).is_some_and(|place| place < size))
    };
    if !inside(1) {
        return None;
    }
    let (mut fits, mut beyond) = (1, size.saturating_add(2));
    while beyond - fits > 1 {
        let middle = fits + (beyond - fits) / 2;
        if inside(middle) { fits = middle } else { beyond = middle }
    }
    Some(fits)
}

/// Whether `a < b` in every batch (`Some(true)`) or in none (`Some(false)`).
pub(super) fn less(a: &Dim, b: &Dim) -> Option<bool> {
    if never_negative(&(b.clone() - a.clone() - Dim::from(1))) {
        return Some(true);
    }
    never_negative(&(a.clone() - b.clone())).then_some(false)
}

/// Whether two dimensions are the same. A size that a batch brings is taken to differ from every number: exporters ask
/// whether it is -1 or 1.
pub(super) fn equal(a: &Dim, b: &Dim) -> bool {
    a == b
}

/// The product.
pub(super) fn multiply(a: &Dim, b: &Dim) -> Result<Dim> {
    if a.to_string().len() * b.to_string().len() > LONGEST * 10 {
        return Err(problem("a size that is too involved"));
    }
    bounded(a.clone() * b.clone())
}

/// The dimension, if it is a sensible one.
pub(super) fn bounded(dim: Dim) -> Result<Dim> {
    if dim.to_string().len() > LONGEST { Err(problem("a size that is too involved")) } else { Ok(dim) }
}

/// The number of elements.
pub(super) fn volume(shape: &[Dim]) -> Result<Dim> {
    shape.iter().try_fold(Dim::from(1), |product, dim| multiply(&product, dim))
}

/// The common shape of two, aligned at the last dimension.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Shape> {
    let one = Dim::from(1);
    let length = a.len().max(b.len());
    let dim = |shape: &[Dim], index: usize| {
        (index + shape.len()).checked_sub(length).and_then(|at| shape.get(at)).cloned().unwrap_or_else(|| one.clone())
    };
    let joined = |index| match (dim(a, index), dim(b, index)) {
        (x, y) if x == y => Some(x),
        (x, y) if x == one => Some(y),
        (x, y) if y == one => Some(x),
        _ => None,
    };
    let shape = (0..length).map(joined).collect::<Option<Shape>>();
    shape.ok_or_else(|| Problem(format!("[{}] and [{}] don't broadcast", shown(a), shown(b))))
}

pub(super) fn shown(shape: &[Dim]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The sizes of a shape without symbols.
pub(super) fn constants(shape: &[Dim]) -> Option<Vec<usize>> {
    shape.iter().map(Dim::constant).collect()
}

/// An axis of a tensor of `rank` dimensions; negative ones count from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let rank_signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let from_start = if axis < 0 { axis.saturating_add(rank_signed) } else { axis };
    usize::try_from(from_start)
        .ok()
        .filter(|&from_start| from_start < rank)
        .ok_or_else(|| Problem(format!("axis {axis} of a tensor with {rank} dimensions")))
}
