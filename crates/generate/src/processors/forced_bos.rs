//! `forced_bos_token_id`: what follows the decoder's first token.

use super::{Processor, force};

pub(super) struct ForcedBos(pub(super) u32);

impl Processor for ForcedBos {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        if ids.len() == 1 {
            force(&[self.0], scores);
        }
    }
}
