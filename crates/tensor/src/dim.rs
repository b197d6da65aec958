//! Symbolic dimensions: polynomials with integer coefficients over a few named symbols.
//!
//! A shape such as `[Tokens, 384]` or `[Batch, 12, Sequence, Past + Sequence]` is known when a graph
//! is compiled; its numbers are known when a batch arrives.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number that is only known when a batch arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Symbol {
    /// All tokens of a packed batch.
    Tokens,
    /// Sequences of a packed batch.
    Sequences,
    /// Rows of a padded `[Batch, Sequence]` graph.
    Batch,
    /// Columns of a padded `[Batch, Sequence]` graph.
    Sequence,
    /// Tokens that came before, in a padded graph with a cache.
    Past,
    /// Tokens of a packed batch that were picked for output.
    Selected,
}

impl Symbol {
    /// Every symbol, in the order of their use in [`Dim`]s.
    pub const ALL: [Symbol; 6] =
        [Symbol::Tokens, Symbol::Sequences, Symbol::Batch, Symbol::Sequence, Symbol::Past, Symbol::Selected];
}

/// The numbers behind the symbols for one batch. Symbols that a graph does not use may stay 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Value of [`Symbol::Tokens`].
    pub tokens: usize,
    /// Value of [`Symbol::Sequences`].
    pub sequences: usize,
    /// Value of [`Symbol::Batch`].
    pub batch: usize,
    /// Value of [`Symbol::Sequence`].
    pub sequence: usize,
    /// Value of [`Symbol::Past`].
    pub past: usize,
    /// Value of [`Symbol::Selected`].
    pub selected: usize,
}

impl Bindings {
    /// The value of `symbol`.
    pub fn get(&self, symbol: Symbol) -> usize {
        match symbol {
            Symbol::Tokens => self.tokens,
            Symbol::Sequences => self.sequences,
            Symbol::Batch => self.batch,
            Symbol::Sequence => self.sequence,
            Symbol::Past => self.past,
            Symbol::Selected => self.selected,
        }
    }
}

/// Exponent of each symbol in a product, in the order of [`Symbol::ALL`].
type Powers = [u8; Symbol::ALL.len()];

/// A dimension: an integer polynomial over [`Symbol`]s, in canonical form, so `==` is equality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Dim {
    terms: BTreeMap<Powers, i64>,
}

/// A symbolic shape, outermost dimension first.
pub type Shape = Vec<Dim>;

/// The symbolic form of a concrete shape.
pub fn shape_of(dims: &[usize]) -> Shape {
    dims.iter().map(|&dim| Dim::from(dim)).collect()
}

impl Dim {
    /// The value, where no symbol is left.
    pub fn constant(&self) -> Option<usize> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&Powers::default()).and_then(|&value| usize::try_from(value).ok()),
            _ => None,
        }
    }

    /// Whether the value depends on a symbol's.
    pub fn depends_on(&self, symbol: Symbol) -> bool {
        let at = Symbol::ALL.iter().position(|other| *other == symbol);
        self.terms.keys().any(|powers| at.and_then(|at| powers.get(at)).is_some_and(|&power| power > 0))
    }

    /// The value for one batch; `None` where it would be negative or overflow.
    pub fn evaluate(&self, bindings: &Bindings) -> Option<usize> {
        let mut sum = 0i64;
        for (powers, &coefficient) in &self.terms {
            let mut product = coefficient;
            for (symbol, &power) in Symbol::ALL.iter().zip(powers) {
                let value = i64::try_from(bindings.get(*symbol)).ok()?;
                product = product.checked_mul(value.checked_pow(u32::from(power))?)?;
            }
            sum = sum.checked_add(product)?;
        }
        usize::try_from(sum).ok()
    }

    /// The exact quotient by one product of symbols and a constant; `None` where it leaves a rest.
    pub fn divide_exact(&self, divisor: &Dim) -> Option<Dim> {
        if self == divisor && !self.terms.is_empty() {
            return Some(Dim::from(1));
        }
        let mut terms = divisor.terms.iter();
        let (powers, &coefficient) = terms.next()?;
        if terms.next().is_some() || coefficient == 0 {
            return None;
        }
        let mut quotient = Dim::default();
        for (have, &value) in &self.terms {
            if value.checked_rem(coefficient) != Some(0) {
                return None;
            }
            let mut left = Powers::default();
            for (slot, (a, b)) in left.iter_mut().zip(have.iter().zip(powers)) {
                *slot = a.checked_sub(*b)?;
            }
            quotient.terms.insert(left, value / coefficient);
        }
        Some(quotient)
    }

    /// What is added and what is taken away: two dimensions without negative terms whose difference this one is.
    pub fn parts(&self) -> (Dim, Dim) {
        let (mut added, mut taken) = (Dim::default(), Dim::default());
        for (powers, &value) in &self.terms {
            let side = if value < 0 { &mut taken } else { &mut added };
            side.terms.insert(*powers, value.saturating_abs());
        }
        (added, taken)
    }

    /// Its summands: a factor and the symbols that it is multiplied by, each as often as its power says.
    pub fn terms(&self) -> impl Iterator<Item = (i64, Vec<Symbol>)> + '_ {
        self.terms.iter().map(|(powers, &value)| {
            let symbols = Symbol::ALL.iter().zip(powers);
            (value, symbols.flat_map(|(&symbol, &power)| std::iter::repeat_n(symbol, power.into())).collect())
        })
    }

    fn combine(mut self, other: &Dim, sign: i64) -> Dim {
        for (powers, &value) in &other.terms {
            let sum = self.terms.entry(*powers).or_insert(0);
            *sum = sum.saturating_add(sign.saturating_mul(value));
        }
        self.terms.retain(|_, value| *value != 0);
        self
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Dim {
        let mut terms = BTreeMap::new();
        if value != 0 {
            terms.insert(Powers::default(), i64::try_from(value).unwrap_or(i64::MAX));
        }
        Dim { terms }
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Dim {
        let powers = Symbol::ALL.map(|other| u8::from(other == symbol));
        Dim { terms: BTreeMap::from([(powers, 1)]) }
    }
}

impl Add for Dim {
    type Output = Dim;
    fn add(self, other: Dim) -> Dim {
        self.combine(&other, 1)
    }
}

impl Sub for Dim {
    type Output = Dim;
    fn sub(self, other: Dim) -> Dim {
        self.combine(&other, -1)
    }
}

impl Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        let mut product = Dim::default();
        for (a, &x) in &self.terms {
            for (b, &y) in &other.terms {
                let mut powers = *a;
                for (slot, more) in powers.iter_mut().zip(b) {
                    *slot = slot.saturating_add(*more);
                }
                let term = Dim { terms: BTreeMap::from([(powers, x.saturating_mul(y))]) };
                product = product.combine(&term, 1);
            }
        }
        product
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        for (index, (powers, &value)) in self.terms.iter().rev().enumerate() {
            let sign = if value < 0 { "-" } else { "+" };
            match (index, value < 0) {
                (0, false) => {}
                (0, true) => f.write_str("-")?,
                _ => write!(f, " {sign} ")?,
            }
            let mut factors = Vec::new();
            if value.unsigned_abs() != 1 || powers.iter().all(|&power| power == 0) {
                factors.push(value.unsigned_abs().to_string());
            }
            for (symbol, &power) in Symbol::ALL.iter().zip(powers) {
                factors.extend((0..power).map(|_| format!("{symbol:?}")));
            }
            f.write_str(&factors.join("*"))?;
        }
        Ok(())
    }
}

/// A text that is no dimension.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no dimension; write it as `384`, `Tokens` or `2*Sequence + Past - 1`")]
pub struct ParseDimError(String);

impl FromStr for Dim {
    type Err = ParseDimError;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Dim, ParseDimError> {
        let error = || ParseDimError(text.chars().take(80).collect());
        let factor = |factor: &str| match Symbol::ALL.iter().find(|symbol| format!("{symbol:?}") == factor) {
            Some(&symbol) => Some(Dim::from(symbol)),
            None => factor.parse::<u32>().ok().map(|number| Dim::from(number as usize)),
        };
        let term = |term: &str| term.split('*').try_fold(Dim::from(1), |product, text| Some(product * factor(text)?));
        let mut words = text.split(' ');
        let first = words.next().ok_or_else(error)?;
        let mut sum = match first.strip_prefix('-') {
            Some(first) => Dim::default() - term(first).ok_or_else(error)?,
            None => term(first).ok_or_else(error)?,
        };
        while let Some(sign) = words.next() {
            let term = words.next().and_then(term).ok_or_else(error)?;
            sum = match sign {
                "+" => sum + term,
                "-" => sum - term,
                _ => return Err(error()),
            };
        }
        Ok(sum)
    }
}

impl From<Dim> for String {
    fn from(dim: Dim) -> String {
        dim.to_string()
    }
}

impl TryFrom<String> for Dim {
    type Error = ParseDimError;
    fn try_from(text: String) -> Result<Dim, ParseDimError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_canonical() {
        let past = Dim::from(Symbol::Past);
        let sequence = Dim::from(Symbol::Sequence);
        let sum = past.clone() + sequence.clone();
        assert_eq!(sum, sequence.clone() + past.clone());
        assert_eq!(sum.clone() - sequence.clone(), past);
        let area = sum * Dim::from(12);
        assert_eq!(area.to_string(), "12*Sequence + 12*Past");
        assert_eq!(area.divide_exact(&Dim::from(5)), None);
        assert_eq!(area.divide_exact(&Dim::from(4)).map(|d| d.to_string()).as_deref(), Some("3*Sequence + 3*Past"));
        let bindings = Bindings { sequence: 7, past: 3, ..Bindings::default() };
        assert_eq!(area.evaluate(&bindings), Some(120));
        assert_eq!((past.clone() - Dim::from(4)).evaluate(&bindings), None);
        assert!(area.depends_on(Symbol::Past) && !area.depends_on(Symbol::Tokens));
        assert_eq!((sequence.clone() - past.clone() - Dim::from(4)).parts(), (sequence, past.clone() + Dim::from(4)));
        assert_eq!((past.clone() - past).constant(), Some(0));
    }

    #[test]
    fn what_is_printed_is_read() {
        let (tokens, past) = (Dim::from(Symbol::Tokens), Dim::from(Symbol::Past));
        for dim in [
            Dim::default(),
            Dim::from(384),
            tokens.clone(),
            tokens.clone() * tokens.clone() * Dim::from(3) - past.clone() - Dim::from(7),
            Dim::default() - past * tokens,
        ] {
            assert_eq!(dim.to_string().parse(), Ok(dim));
        }
        for text in ["", " ", "x", "3 +", "3 * 4", "Tokens Past", "-", "3**4", "99999999999", "1 + + 2"] {
            assert!(text.parse::<Dim>().is_err(), "{text}");
        }
    }

    #[test]
    fn overflow_is_none() {
        let tokens = Dim::from(Symbol::Tokens);
        let cubed = tokens.clone() * tokens.clone() * tokens;
        assert_eq!(cubed.evaluate(&Bindings { tokens: usize::MAX / 2, ..Bindings::default() }), None);
    }
}
