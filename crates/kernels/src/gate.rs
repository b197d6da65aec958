//! Gated linear units without their linear layers: `activation(a) · b`.
#![allow(unsafe_code)]

use crate::activation::{Activation, Elementwise, with_activation};
use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension};
use crate::matrix::{Matrix, MatrixMut};
use crate::rows::RowJob;
use crate::simd::{LANES, Simd};

/// The operands of a gate.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// What the activation is applied to.
    pub a: Matrix<'a>,
    /// What the result of that is multiplied by.
    pub b: Matrix<'a>,
    /// The activation.
    pub activation: Activation,
}

/// Checked operands of a gate.
pub(crate) struct Job<'a> {
    gate: Gate<'a>,
    out: MatrixMut<'a>,
}

impl Kernels {
    /// `out = activation(a) · b`, element by element. `out` may be the same memory as `a` or `b`.
    pub fn gate(self, gate: &Gate<'_>, out: &mut MatrixMut<'_>) -> Result<(), KernelError> {
        let job = Job::new("gate", gate, out)?;
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.table.gate)(&job) };
        Ok(())
    }
}

impl<'a> Job<'a> {
    /// Checks that all shapes agree.
    pub(crate) fn new(kernel: &'static str, gate: &Gate<'a>, out: &'a mut MatrixMut<'_>) -> Result<Self, KernelError> {
        for operand in [gate.a, gate.b] {
            expect_dimension(kernel, "rows of an operand", operand.rows(), out.rows())?;
            expect_dimension(kernel, "columns of an operand", operand.columns(), out.columns())?;
        }
        Ok(Self { gate: *gate, out: out.reborrow() })
    }
}

impl RowJob for Job<'_> {
    fn out(&self) -> &MatrixMut<'_> {
        &self.out
    }

    #[inline(always)]
    unsafe fn row<S: Simd>(&self, s: S, row: usize) {
        let (a, b, out) = (self.gate.a.row_pointer(row), self.gate.b.row_pointer(row), self.out.row_pointer(row));
        let columns = self.out.columns();
        // SAFETY: the row exists in all three views, whose shapes were checked.
        unsafe { with_activation!(Some(self.gate.activation), F => product::<S, F>(s, a, b, out, columns)) };
    }
}

/// `out = F(a) · b`
///
/// # Safety
/// `columns` elements of each are accessible; `out` may be `a` or `b`.
#[inline(always)]
unsafe fn product<S: Simd, F: Elementwise>(s: S, a: *const f32, b: *const f32, out: *mut f32, columns: usize) {
    let mut start = 0;
    // SAFETY: every access is to elements before `columns`.
    unsafe {
        while start + LANES <= columns {
            s.store(s.mul(F::apply(s, s.load(a.add(start))), s.load(b.add(start))), out.add(start));
            start += LANES;
        }
        if start < columns {
            let rest = columns - start;
            let product = s.mul(F::apply(s, s.load_first(a.add(start), rest)), s.load_first(b.add(start), rest));
            s.store_first(product, out.add(start), rest);
        }
    }
}
