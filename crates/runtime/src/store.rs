//! Where the weights of plans lie, and how plans share those that are equal.
//!
//! A plan sees its weights as one range of floats. Normally that is one buffer. Where a plan that is loaded already has
//! a part with the same bytes, as two fine-tunes of one base have, that part of the range lies in the other's buffer.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use centuple_tensor::Buffer;

use crate::weights::{LINE, PAGE, StoredPart};

/// Parts of fewer floats are not worth a look.
const SMALLEST: usize = PAGE;

/// The weights of a plan: a range of floats in pieces.
#[derive(Debug)]
pub(crate) struct Weights {
    /// In order; what lies between two of them belongs to no part.
    pieces: Vec<Piece>,
    /// Bytes of the buffer that this plan has brought.
    own: usize,
}

#[derive(Clone, Debug)]
struct Piece {
    range: Range<usize>,
    buffer: Arc<Buffer>,
    /// Float of the buffer at which it begins.
    at: usize,
}

impl Weights {
    /// Weights that share nothing.
    pub(crate) fn own(buffer: Buffer) -> Weights {
        let own = buffer.as_ref().len();
        Weights { pieces: vec![Piece { range: 0..own / size_of::<f32>(), buffer: Arc::new(buffer), at: 0 }], own }
    }

    /// Floats of one part.
    pub(crate) fn get(&self, range: Range<usize>) -> Option<&[f32]> {
        let piece = self.piece(&range)?;
        let start = piece.at + (range.start - piece.range.start);
        piece.buffer.as_f32().get(start..start + range.len())
    }

    /// The piece that holds a range.
    fn piece(&self, range: &Range<usize>) -> Option<&Piece> {
        let piece = match self.pieces.as_slice() {
            [only] => only,
            pieces => pieces.get(pieces.partition_point(|piece| piece.range.end <= range.start))?,
        };
        (piece.range.start <= range.start && range.start <= range.end && range.end <= piece.range.end).then_some(piece)
    }

    /// One behind the last float.
    pub(crate) fn len(&self) -> usize {
        self.pieces.last().map_or(0, |piece| piece.range.end)
    }

    /// Bytes of what no other plan has brought.
    pub(crate) fn own_bytes(&self) -> usize {
        self.own
    }

    /// Bytes of what other plans have brought.
    pub(crate) fn shared_bytes(&self) -> usize {
        let all: usize = self.pieces.iter().map(|piece| piece.range.len() * size_of::<f32>()).sum();
        all.saturating_sub(self.own)
    }
}

/// The weights of all plans of a process that share theirs.
///
/// Parts are compared byte by byte, so what is shared is equal. A buffer stays as long as any plan uses a part of it.
#[derive(Debug, Default)]
pub struct WeightStore {
    known: Mutex<Vec<Known>>,
}

/// A plan that was there before.
#[derive(Debug)]
struct Known {
    parts: Vec<StoredPart>,
    weights: Weak<Weights>,
}

impl WeightStore {
    /// These weights, with everything that is equal to a part of another plan taken from there.
    pub(crate) fn share(&self, parts: &[StoredPart], weights: &Arc<Weights>) -> Arc<Weights> {
        // Nothing that is done under this lock panics, and a list that was cut short would still be right.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|plan| plan.weights.strong_count() > 0);
        let others: Vec<(&[StoredPart], Arc<Weights>)> =
            known.iter().filter_map(|plan| Some((plan.parts.as_slice(), plan.weights.upgrade()?))).collect();
        let equal = equal_parts(parts, weights, &others);
        let shared = match equal.is_empty() {
            true => None,
            false => rebuild(parts, weights, &equal),
        };
        let weights = shared.map_or_else(|| Arc::clone(weights), Arc::new);
        known.push(Known { parts: parts.to_vec(), weights: Arc::downgrade(&weights) });
        weights
    }
}

/// By the start of a part: where its equal lies.
fn equal_parts(
    parts: &[StoredPart],
    weights: &Weights,
    others: &[(&[StoredPart], Arc<Weights>)],
) -> HashMap<usize, (Arc<Buffer>, usize)> {
    let mut equal = HashMap::new();
    for (part, place) in StoredPart::places(parts).filter(|(part, _)| part.floats() >= SMALLEST) {
        let Some(own) = weights.get(place.clone()) else { continue };
        let alike = others.iter().flat_map(|(parts, weights)| {
            let alike = StoredPart::places(parts).filter(|(other, _)| other.is_like(part));
            alike.filter_map(|(_, place)| Some((weights.piece(&place)?, weights.get(place.clone())?, place)))
        });
        // As bytes: not a number is equal to itself here, and 0 is not -0.
        let same = |floats: &[f32]| bytemuck::cast_slice::<_, u8>(floats) == bytemuck::cast_slice::<_, u8>(own);
        let found = alike.into_iter().find(|(_, floats, _)| same(floats));
        if let Some((piece, _, other)) = found {
            equal.insert(place.start, (Arc::clone(&piece.buffer), piece.at + (other.start - piece.range.start)));
        }
    }
    equal
}

/// Weights of which equal parts lie elsewhere and all others in a new, smaller buffer; `None` where the system does
/// not grant it.
fn rebuild(parts: &[StoredPart], weights: &Weights, equal: &HashMap<usize, (Arc<Buffer>, usize)>) -> Option<Weights> {
    let (mut own_length, mut moves) = (0usize, Vec::new());
    let mut places = Vec::new();
    for (_, range) in StoredPart::places(parts) {
        if let Some((buffer, at)) = equal.get(&range.start) {
            places.push((range, Some(Arc::clone(buffer)), *at));
        } else {
            let at = own_length.next_multiple_of(if range.start % PAGE == 0 { PAGE } else { LINE });
            own_length = at + range.len();
            moves.push((range.clone(), at));
            places.push((range, None, at));
        }
    }
    let mut buffer = Buffer::try_zeroed(own_length * size_of::<f32>())?;
    for (range, at) in moves {
        buffer.as_f32_mut()[at..at + range.len()].copy_from_slice(weights.get(range)?);
    }
    let (own, buffer) = (buffer.as_ref().len(), Arc::new(buffer));
    let piece = |(range, other, at): (Range<usize>, Option<Arc<Buffer>>, usize)| Piece {
        range,
        buffer: other.unwrap_or_else(|| Arc::clone(&buffer)),
        at,
    };
    Some(Weights { pieces: places.into_iter().map(piece).collect(), own })
}
