//! `report.json`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use thiserror::Error;

use super::{FORMAT, Receipt};
use crate::rung::RUNGS;

/// Why a receipt can't be written or read.
#[derive(Debug, Error)]
pub enum ReceiptError {
    /// It isn't JSON, lacks something, or holds a figure that JSON can't.
    #[error("receipt: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error("receipt of format {0}; this version reads format {FORMAT}")]
    Format(u32),
}

impl Receipt {
    /// Writes the receipt as indented JSON with a newline at the end.
    ///
    /// # Errors
    /// A figure is not finite.
    pub fn to_json(&self) -> Result<String, ReceiptError> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads what [`Receipt::to_json`] wrote.
    ///
    /// # Errors
    /// It is no such text, or of another format.
    pub fn from_json(text: &str) -> Result<Receipt, ReceiptError> {
        #[derive(Deserialize)]
        struct Outer {
            findings: Inner,
        }
        #[derive(Deserialize)]
        struct Inner {
            format: u32,
        }
        let Outer { findings: Inner { format } } = serde_json::from_str(text)?;
        if format != FORMAT {
            return Err(ReceiptError::Format(format));
        }
        Ok(serde_json::from_str(text)?)
    }
}

/// JSON has no word for what isn't finite: serde_json would write null, which can't be read back.
pub(super) fn finite<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { value.serialize(serializer) } else { Err(ser::Error::custom("a figure is not finite")) }
}

/// [`finite`] for a figure that may be unknown.
pub(super) fn finite_option<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => finite(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// Counts by rung; receipts from before there were 4-bit weights, the first rung, lack its count.
pub(super) fn rungs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[usize; RUNGS], D::Error> {
    let counts = Vec::<usize>::deserialize(deserializer)?;
    let mut rungs = [0; RUNGS];
    if !(RUNGS - 1..=RUNGS).contains(&counts.len()) {
        return Err(de::Error::invalid_length(counts.len(), &"a count for each rung"));
    }
    rungs[RUNGS - counts.len()..].copy_from_slice(&counts);
    Ok(rungs)
}
