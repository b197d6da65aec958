//! Between packed rows and rows padded to the longest sequence.

use centuple_tensor::{Layout, Tensor};

use crate::Result;

/// Elements of one row: those behind the first `leading` dimensions.
fn width(x: &Tensor, leading: usize) -> usize {
    x.shape().iter().skip(leading).product()
}

pub(crate) fn pad(x: &Tensor, layout: &Layout) -> Result<Tensor> {
    let (longest, width) = (layout.longest(), width(x, 1));
    let data = x.as_f32()?;
    let mut out = Vec::with_capacity(layout.spans().len() * longest * width);
    for span in layout.spans() {
        out.extend_from_slice(&data[span.start * width..(span.start + span.tokens) * width]);
        out.extend(std::iter::repeat_n(0.0, (longest - span.tokens) * width));
    }
    let shape = [&[layout.spans().len(), longest], &x.shape()[1..]].concat();
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn pack(x: &Tensor, layout: &Layout) -> Result<Tensor> {
    let (longest, width) = (layout.longest(), width(x, 2));
    let data = x.as_f32()?;
    let mut out = Vec::with_capacity(layout.tokens() * width);
    for (sequence, span) in layout.spans().iter().enumerate() {
        let start = sequence * longest * width;
        out.extend_from_slice(&data[start..start + span.tokens * width]);
    }
    let shape = [&[layout.tokens()], &x.shape()[2..]].concat();
    Ok(Tensor::from_f32(&shape, &out)?)
}
