//! The one place where an instruction set is chosen: [`Kernels`] is a token for a CPU that has been
//! checked, and holds the table of functions compiled for it.
#![allow(unsafe_code)]

use crate::activation::Function;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::simd::portable::Portable;
use crate::{activation, attention, ceiling, gemm, norm, softmax};

/// The kernels of one instruction set; proof that this CPU can execute it.
///
/// All compute functions of this crate that use SIMD are methods of it. They run on the calling
/// thread; callers split the work.
#[derive(Clone, Copy)]
pub struct Kernels {
    isa: Isa,
    pub(crate) table: &'static Table,
}

impl Kernels {
    /// The kernels for `isa`. Errors if this CPU does not have it.
    pub fn new(isa: Isa) -> Result<Self, KernelError> {
        if !isa.is_available() {
            return Err(KernelError::IsaNotAvailable(isa));
        }
        let table = match isa {
            Isa::Portable => &portable::TABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2::TABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &avx512::TABLE,
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => return Err(KernelError::IsaNotAvailable(isa)),
        };
        Ok(Self { isa, table })
    }

    /// The instruction set of these kernels.
    #[must_use]
    pub fn isa(self) -> Isa {
        self.isa
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kernels").field(&self.isa).finish()
    }
}

/// Declares the table type and, for one instruction set, a module with entry points and table.
macro_rules! kernel_table {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $kernel:path;)*) => {
        /// Entry points of one instruction set. Calling one is sound if the CPU has the instruction
        /// set and the contract of the kernel is kept.
        pub(crate) struct Table {
            $($(#[$doc])* pub(crate) $name: unsafe fn($($type),*) $(-> $result)?,)*
        }

        kernel_table!(@module portable, Portable, {}, {
            $($name($($argument: $type),*) ($($result)?) $kernel;)*
        });
        #[cfg(target_arch = "x86_64")]
        kernel_table!(@module avx2, crate::simd::avx2::Avx2::assume(),
            { #[target_feature(enable = "avx2,fma")] }, {
            $($name($($argument: $type),*) ($($result)?) $kernel;)*
        });
        #[cfg(target_arch = "x86_64")]
        kernel_table!(@module avx512, crate::simd::avx512::Avx512::assume(),
            { #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")] }, {
            $($name($($argument: $type),*) ($($result)?) $kernel;)*
        });
    };
    (@module $module:ident, $token:expr, $attributes:tt, { $($entry:tt)* }) => {
        mod $module {
            use super::*;
            kernel_table!(@entries $token, $attributes, $($entry)*);
        }
    };
    (@entries $token:expr, $attributes:tt,
        $($name:ident($($argument:ident: $type:ty),*) ($($result:ty)?) $kernel:path;)*) => {
        $(kernel_table!(@entry $token, $attributes, $name($($argument: $type),*) ($($result)?) $kernel);)*
        pub(super) static TABLE: Table = Table { $($name),* };
    };
    (@entry $token:expr, { $($attribute:tt)* },
        $name:ident($($argument:ident: $type:ty),*) ($($result:ty)?) $kernel:path) => {
        $($attribute)*
        unsafe fn $name($($argument: $type),*) $(-> $result)? {
            // SAFETY: the table is only reachable through a `Kernels` whose constructor has checked
            // the CPU; the caller keeps the contract of the kernel.
            #[allow(unused_unsafe, reason = "the portable token is a plain value")]
            unsafe { $kernel($token, $($argument),*) }
        }
    };
}

kernel_table! {
    /// Packed matrix multiplication with epilogue.
    gemm(job: &gemm::Job<'_>) = gemm::multiply;
    /// Softmax attention of one head.
    attention(job: &attention::Job<'_>) = attention::attend;
    /// LayerNorm of rows.
    layer_norm(job: &norm::Job<'_>) = norm::layer_norm;
    /// Softmax of rows in place.
    softmax(rows: &mut crate::matrix::MatrixMut<'_>) = softmax::rows;
    /// An elementwise function in place.
    map(function: Function, values: &mut [f32]) = activation::map;
    /// Independent chains of multiply-adds in registers.
    multiply_add_chains(multiply_adds: usize) -> f32 = ceiling::multiply_add_chains;
}
