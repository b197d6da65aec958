//! Number and width of attention heads where keys and values may have fewer of them.

use crate::ModelError;
use crate::config::Config;

/// Most heads, and most columns of a head.
const MOST: usize = 1 << 14;

/// Heads of an attention.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl Heads {
    /// What the fields `hidden_size` and `num_attention_heads`, then `num_key_value_heads` and `head_dim` say; the last two
    /// follow from the others where they aren't there.
    ///
    /// # Errors
    /// The numbers do not fit together.
    pub(crate) fn of(
        json: Config,
        [width, heads]: [usize; 2],
        kv_heads: Option<usize>,
        head_dim: Option<usize>,
    ) -> Result<Heads, ModelError> {
        let head_dim = match head_dim {
            Some(head_dim) => head_dim,
            None => json.head_dim(("hidden_size", width), ("num_attention_heads", heads))?,
        };
        json.at_most("num_attention_heads", heads, MOST)?;
        json.at_most("head_dim", head_dim, MOST)?;
        let kv_heads = kv_heads.unwrap_or(heads);
        if kv_heads == 0 || head_dim == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(json.error(format!(
                "`num_attention_heads` {heads} of `head_dim` {head_dim} is not a multiple of `num_key_value_heads` {kv_heads}"
            )));
        }
        Ok(Heads { heads, kv_heads, head_dim })
    }
}
