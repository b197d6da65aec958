//! From a pickled state dict to tensors in the file.

use std::collections::BTreeMap;

use super::super::stored::Stored;
use super::machine::Pickle;
use super::value::{Value, View};
use super::{Storages, quoted};

/// The tensors of the state dict `pickle`, each checked to lie inside of its storage.
pub(super) fn of_state_dict(pickle: &Pickle, storages: &impl Storages) -> Result<BTreeMap<String, Stored>, String> {
    let Value::Dict(dict) = pickle.root() else {
        return Err(format!("it holds {}, not a state dict", pickle.root().kind()));
    };
    let mut tensors = BTreeMap::new();
    for &(key, value) in &dict.entries {
        let Value::Text(name) = *pickle.value(key) else {
            return Err(format!("a key of its dict is {}, not a name", pickle.value(key).kind()));
        };
        let Value::Tensor(view) = pickle.value(value) else {
            let kind = pickle.value(value).kind();
            return Err(format!("its entry {} is {kind}, not a tensor; a plain state dict is read", quoted(name)));
        };
        let stored = stored(view, storages).map_err(|reason| format!("its tensor {}: {reason}", quoted(name)))?;
        tensors.insert(name.to_string(), stored);
    }
    Ok(tensors)
}

fn stored(view: &View, storages: &impl Storages) -> Result<Stored, String> {
    let View { storage, offset, shape, strides } = view;
    let width = storage.width();
    let length =
        storage.count.checked_mul(width).ok_or_else(|| format!("its storage claims {} numbers", storage.count))?;
    let range = storages.range(storage.key, length)?;
    let beyond = || {
        format!(
            "the shape {shape:?} with the strides {strides:?} from {offset} on reaches beyond its storage of {} numbers",
            storage.count
        )
    };
    // A view may name a number more than once, but not have more numbers than its storage: then memory is bounded by the file.
    let volume = shape.iter().try_fold(1usize, |volume, &size| volume.checked_mul(size)).ok_or_else(beyond)?;
    if volume > storage.count || *offset > storage.count {
        return Err(beyond());
    }
    if volume > 0 {
        let mut steps = shape.iter().zip(strides).map(|(&size, &stride)| (size - 1).checked_mul(stride));
        let last = steps.try_fold(*offset, |last, step| last.checked_add(step?));
        if last.is_none_or(|last| last >= storage.count) {
            return Err(beyond());
        }
    }
    let start = range.start + offset * width;
    let strides = if volume == 0 || is_row_major(shape, strides) { None } else { Some(effective(shape, strides)) };
    Ok(Stored { dtype: storage.dtype, shape: shape.clone(), strides, start })
}

/// Whether the elements lie one after the other in the order of their indices.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected *= size;
        fits
    })
}

/// Strides that are small even where a dimension of one element has an arbitrary one.
fn effective(shape: &[usize], strides: &[usize]) -> Vec<usize> {
    shape.iter().zip(strides).map(|(&size, &stride)| if size == 1 { 0 } else { stride }).collect()
}
