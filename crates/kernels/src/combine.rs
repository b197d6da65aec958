//! Operations on two matrices, element by element, one of which may be a row or a number that stands for all rows.
#![allow(unsafe_code)]

use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension};
use crate::matrix::{Matrix, MatrixMut};
use crate::primitive::Binary;
use crate::rows::RowJob;
use crate::simd::{LANES, Simd};

/// An operand of [`Kernels::combine`].
#[derive(Debug, Clone, Copy)]
pub enum RowOperand<'a> {
    /// A row for each row of the result.
    Rows(Matrix<'a>),
    /// The same row for all.
    Row(&'a [f32]),
    /// The same number for all elements.
    Number(f32),
}

/// Checked operands of [`Kernels::combine`].
pub(crate) struct Job<'a> {
    operation: Binary,
    a: RowOperand<'a>,
    b: RowOperand<'a>,
    out: MatrixMut<'a>,
}

impl Kernels {
    /// `out = operation(a, b)`, element by element: the numbers that
    /// [`primitive::binary`](crate::primitive::binary) gives, bit for bit.
    ///
    /// `out` may be the same memory as an operand.
    pub fn combine(
        self,
        operation: Binary,
        a: RowOperand<'_>,
        b: RowOperand<'_>,
        out: &mut MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        const NAME: &str = "combine";
        for operand in [a, b] {
            match operand {
                RowOperand::Rows(rows) => {
                    expect_dimension(NAME, "rows of an operand", rows.rows(), out.rows())?;
                    expect_dimension(NAME, "columns of an operand", rows.columns(), out.columns())?;
                }
                RowOperand::Row(row) => expect_dimension(NAME, "length of a row", row.len(), out.columns())?,
                RowOperand::Number(_) => {}
            }
        }
        let job = Job { operation, a, b, out: out.reborrow() };
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.table.combine)(&job) };
        Ok(())
    }
}

/// One row of an operand.
#[derive(Clone, Copy)]
enum Source {
    /// Its first element.
    Elements(*const f32),
    Number(f32),
}

impl RowOperand<'_> {
    #[inline(always)]
    fn row(&self, row: usize) -> Source {
        match self {
            RowOperand::Rows(rows) => Source::Elements(rows.row_pointer(row)),
            RowOperand::Row(row) => Source::Elements(row.as_ptr()),
            RowOperand::Number(number) => Source::Number(*number),
        }
    }
}

impl Source {
    /// # Safety
    /// `count.min(16)` elements from `start` on are readable.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, start: usize, count: usize) -> S::Vector {
        match self {
            // SAFETY: as promised by the caller.
            Source::Elements(first) => unsafe { s.load_up_to(first.add(start), count) },
            Source::Number(number) => s.splat(number),
        }
    }

    /// # Safety
    /// The element is readable.
    #[inline(always)]
    unsafe fn element(self, index: usize) -> f32 {
        match self {
            // SAFETY: as promised by the caller.
            Source::Elements(first) => unsafe { first.add(index).read() },
            Source::Number(number) => number,
        }
    }
}

/// An operation as a type, so that loops are compiled for each.
trait Pairwise {
    fn apply<S: Simd>(s: S, a: S::Vector, b: S::Vector) -> S::Vector;
}

macro_rules! pairwise {
    ($($name:ident: $method:ident;)*) => {
        $(
            struct $name;
            impl Pairwise for $name {
                #[inline(always)]
                fn apply<S: Simd>(s: S, a: S::Vector, b: S::Vector) -> S::Vector {
                    s.$method(a, b)
                }
            }
        )*
    };
}

pairwise! {
    Add: add;
    Sub: sub;
    Mul: mul;
    Div: div;
}

impl RowJob for Job<'_> {
    fn out(&self) -> &MatrixMut<'_> {
        &self.out
    }

    #[inline(always)]
    unsafe fn row<S: Simd>(&self, s: S, row: usize) {
        let (operands, out) = ((self.a.row(row), self.b.row(row)), self.out.row_pointer(row));
        let columns = self.out.columns();
        // SAFETY: the row exists in all views, whose shapes were checked.
        unsafe {
            match self.operation {
                Binary::Add => vectors::<S, Add>(s, operands, out, columns),
                Binary::Sub => vectors::<S, Sub>(s, operands, out, columns),
                Binary::Mul => vectors::<S, Mul>(s, operands, out, columns),
                Binary::Div => vectors::<S, Div>(s, operands, out, columns),
                Binary::Pow | Binary::Min | Binary::Max | Binary::Equal | Binary::Less => {
                    for column in 0..columns {
                        let (a, b) = (operands.0.element(column), operands.1.element(column));
                        out.add(column).write(self.operation.apply(a, b));
                    }
                }
            }
        }
    }
}

/// # Safety
/// `columns` elements of each are accessible; `out` may be an operand.
#[inline(always)]
unsafe fn vectors<S: Simd, F: Pairwise>(s: S, (a, b): (Source, Source), out: *mut f32, columns: usize) {
    let mut start = 0;
    while start < columns {
        let count = LANES.min(columns - start);
        // SAFETY: `start + count` is at most `columns`.
        unsafe { s.store_up_to(F::apply(s, a.load(s, start, count), b.load(s, start, count)), out.add(start), count) };
        start += count;
    }
}
