//! The one place where an instruction set is chosen: [`Kernels`] is a token for a CPU that has been
//! checked, and holds the tables of functions compiled for it.
#![allow(unsafe_code)]

use crate::activation::Function;
use crate::error::KernelError;
use crate::int8::quantize;
use crate::isa::Isa;
use crate::{activation, attention, ceiling, combine, gate, gemm, norm, peak, rotary, rows, softmax};

/// The kernels of one instruction set; proof that this CPU can execute it.
///
/// All compute functions of this crate that use SIMD are methods of it. They run on the calling
/// thread; callers split the work.
#[derive(Clone, Copy)]
pub struct Kernels {
    isa: Isa,
    pub(crate) table: &'static Table,
    pub(crate) int8: &'static int8::Table,
}

impl Kernels {
    /// The kernels for `isa`. Errors if this CPU does not have it.
    pub fn new(isa: Isa) -> Result<Self, KernelError> {
        if !isa.is_available() {
            return Err(KernelError::IsaNotAvailable(isa));
        }
        let (table, int8) = match isa {
            Isa::Portable => (&portable::TABLE, &int8::portable::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (&avx2::TABLE, &int8::avx2::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => (&avx2::TABLE, &int8::avxvnni::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => (&avx512::TABLE, &int8::avx512::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => (&avx512::TABLE, &int8::avx512vnni::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => (&avx512::TABLE, &int8::amx::TABLE),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => {
                return Err(KernelError::IsaNotAvailable(isa));
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => (&neon::TABLE, &int8::neon::TABLE),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => (&neon::TABLE, &int8::neondot::TABLE),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDot => return Err(KernelError::IsaNotAvailable(isa)),
        };
        Ok(Self { isa, table, int8 })
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

/// Declares a type of table and, for each of the listed instruction sets, a module with entry points and
/// table.
macro_rules! kernel_table {
    ([$($isa:ident)*] $entries:tt) => {
        kernel_table!(@type $entries);
        $(kernel_table!(@isa $isa $entries);)*
    };
    (@type { $($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $kernel:path;)* }) => {
        /// Entry points of one instruction set. Calling one is sound if the CPU has the instruction
        /// set and the contract of the kernel is kept.
        pub(crate) struct Table {
            $($(#[$doc])* pub(crate) $name: unsafe fn($($type),*) $(-> $result)?,)*
        }
    };
    (@isa portable $entries:tt) => {
        kernel_table!(@module portable, crate::simd::portable::Portable, {}, $entries);
    };
    (@isa avx2 $entries:tt) => {
        #[cfg(target_arch = "x86_64")]
        kernel_table!(@module avx2, <crate::simd::avx2::Avx2>::assume(),
            { #[target_feature(enable = "avx2,fma,f16c")] }, $entries);
    };
    (@isa avxvnni $entries:tt) => {
        #[cfg(target_arch = "x86_64")]
        kernel_table!(@module avxvnni, crate::simd::avx2::Avx2::<true>::assume(),
            { #[target_feature(enable = "avx2,fma,f16c,avxvnni")] }, $entries);
    };
    (@isa avx512 $entries:tt) => {
        #[cfg(target_arch = "x86_64")]
        kernel_table!(@module avx512, <crate::simd::avx512::Avx512>::assume(),
            { #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")] }, $entries);
    };
    (@isa avx512vnni $entries:tt) => {
        #[cfg(target_arch = "x86_64")]
        kernel_table!(@module avx512vnni, crate::simd::avx512::Avx512::<true>::assume(),
            { #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")] }, $entries);
    };
    (@isa amx $entries:tt) => {
        #[cfg(target_arch = "x86_64")]
        kernel_table!(@module amx, crate::simd::amx::Amx::assume(),
            { #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")] }, $entries);
    };
    (@isa neon $entries:tt) => {
        #[cfg(target_arch = "aarch64")]
        kernel_table!(@module neon, <crate::simd::neon::Neon>::assume(),
            { #[target_feature(enable = "neon")] }, $entries);
    };
    (@isa neondot $entries:tt) => {
        #[cfg(target_arch = "aarch64")]
        kernel_table!(@module neondot, crate::simd::neon::Neon::<true>::assume(),
            { #[target_feature(enable = "neon,dotprod")] }, $entries);
    };
    (@module $module:ident, $token:expr, $attributes:tt,
        { $($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $kernel:path;)* }) => {
        pub(super) mod $module {
            use super::*;
            $(kernel_table!(@entry $token, $attributes, $name($($argument: $type),*) ($($result)?) $kernel);)*
            pub(crate) const TABLE: Table = Table { $($name),* };
        }
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

kernel_table! { [portable avx2 avx512 neon] {
    /// Packed matrix multiplication with epilogue.
    gemm(job: &gemm::Job<'_, f32>) = gemm::multiply;
    /// The same with weights stored as f16.
    gemm_half(job: &gemm::Job<'_, half::f16>) = gemm::multiply;
    /// Softmax attention of one head.
    attention(job: &attention::Job<'_>) = attention::attend;
    /// Softmax attention of one token to what is in pages.
    attend_token(job: &attention::TokenJob<'_>) = attention::attend_token;
    /// Rotation of pairs of columns.
    rotary(job: &mut rotary::Job<'_>) = rotary::rotate;
    /// Normalisation of rows.
    norm(job: &norm::Job<'_>) = rows::all;
    /// The product of a matrix under an activation and another matrix.
    gate(job: &gate::Job<'_>) = rows::all;
    /// An operation on two matrices, element by element.
    combine(job: &combine::Job<'_>) = rows::all;
    /// Softmax of rows in place.
    softmax(rows: &mut crate::matrix::MatrixMut<'_>) = softmax::rows;
    /// The block with the largest value.
    largest(values: &[f32]) -> (usize, f32) = peak::largest;
    /// The logarithm of a sum of exponentials.
    log_sum_exp(values: &[f32], largest: f32) -> f64 = peak::log_sum_exp;
    /// An elementwise function in place.
    map(function: Function, values: &mut [f32]) = activation::map;
    /// Independent chains of multiply-adds in registers.
    multiply_add_chains(multiply_adds: usize) -> f32 = ceiling::multiply_add_chains;
    /// Quantisation of rows.
    quantize_rows(job: &quantize::Job<'_>) = quantize::rows;
    /// Normalisation of rows, and their quantisation.
    norm_quantize(job: &quantize::Computed<'_, norm::Job<'_>>) = quantize::computed_rows;
    /// Gated rows, and their quantisation.
    gate_quantize(job: &quantize::Computed<'_, gate::Job<'_>>) = quantize::computed_rows;
} }

/// What depends on the int8 dot product, which more instruction sets tell apart.
pub(crate) mod int8 {
    use crate::{ceiling, int4, int8};

    kernel_table! { [portable avx2 avxvnni avx512 avx512vnni neon neondot] {
        /// Packed int8 matrix multiplication with epilogue.
        gemm(job: &int8::gemm::Job<'_>) = int8::gemm::multiply;
        /// The same with weights of 4 bits in groups.
        gemm_int4(job: &int4::gemm::Job<'_>) = int4::gemm::multiply;
        /// Independent chains of int8 dot products in registers.
        dot_chains(dots: usize) -> f32 = ceiling::dot_chains;
    } }

    kernel_table! { @isa amx {
        gemm(job: &int8::gemm::Job<'_>) = int8::tiled::multiply;
        gemm_int4(job: &int4::gemm::Job<'_>) = int4::gemm::multiply_by_vectors;
        dot_chains(dots: usize) -> f32 = ceiling::tile_products;
    } }
}
