//! How the numbers of a tensor are stored.

use std::fmt;

use crate::error::quoted;
use crate::{GgufError, quants};

/// Lists the types that are read: name, number in files, elements and bytes of a block, and what turns blocks into f32.
macro_rules! tensor_types {
    ($($(#[$doc:meta])* $variant:ident $name:literal $number:literal [$elements:literal; $bytes:literal] $read:path;)*) => {
        /// A type of tensor that is read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum TensorType {
            $($(#[$doc])* $variant,)*
        }

        impl TensorType {
            /// Every type that is read.
            pub const ALL: &[TensorType] = &[$(TensorType::$variant),*];

            /// Its name, as llama.cpp writes it.
            pub fn name(self) -> &'static str {
                match self { $(TensorType::$variant => $name,)* }
            }

            fn number(self) -> u32 {
                match self { $(TensorType::$variant => $number,)* }
            }

            /// Elements of a block.
            pub fn block_elements(self) -> usize {
                match self { $(TensorType::$variant => $elements,)* }
            }

            /// Bytes of a block.
            pub fn block_bytes(self) -> usize {
                match self { $(TensorType::$variant => $bytes,)* }
            }

            /// The numbers of whole blocks; what has no counterpart on the other side is left alone.
            pub fn dequantize(self, blocks: &[u8], values: &mut [f32]) {
                match self {
                    $(TensorType::$variant => {
                        let blocks = blocks.as_chunks::<$bytes>().0.iter();
                        let values = values.as_chunks_mut::<$elements>().0.iter_mut();
                        blocks.zip(values).for_each(|(block, values)| $read(block, values));
                    })*
                }
            }
        }
    };
}

tensor_types! {
    /// 32-bit floats.
    F32 "F32" 0 [1; 4] quants::f32;
    /// 16-bit floats.
    F16 "F16" 1 [1; 2] quants::f16;
    /// 4 bits, with a scale for 32.
    Q4_0 "Q4_0" 2 [32; 18] quants::q4_0;
    /// 4 bits, with a scale and a minimum for 32.
    Q4_1 "Q4_1" 3 [32; 20] quants::q4_1;
    /// 5 bits, with a scale for 32.
    Q5_0 "Q5_0" 6 [32; 22] quants::q5_0;
    /// 5 bits, with a scale and a minimum for 32.
    Q5_1 "Q5_1" 7 [32; 24] quants::q5_1;
    /// 8 bits, with a scale for 32.
    Q8_0 "Q8_0" 8 [32; 34] quants::q8_0;
    /// 4 bits, with a scale and a minimum for 32, which have 6 bits each.
    Q4K "Q4_K" 12 [256; 144] quants::q4_k;
    /// 5 bits, with a scale and a minimum for 32, which have 6 bits each.
    Q5K "Q5_K" 13 [256; 176] quants::q5_k;
    /// 6 bits, with a scale of 8 bits for 16.
    Q6K "Q6_K" 14 [256; 210] quants::q6_k;
    /// 16-bit floats with the exponents of 32-bit ones.
    BF16 "BF16" 30 [1; 2] quants::bf16;
}

/// Types that aren't read, for messages.
const OTHERS: [(u32, &str); 20] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
];

impl TensorType {
    /// The type of a number in a file; `tensor` is for the message.
    pub(crate) fn of(number: u32, tensor: &str) -> Result<TensorType, GgufError> {
        if let Some(known) = TensorType::ALL.iter().find(|kind| kind.number() == number) {
            return Ok(*known);
        }
        let other = OTHERS.iter().find(|(other, _)| *other == number);
        let other = other.map_or_else(|| format!("of number {number}"), |(_, name)| (*name).to_owned());
        let known: Vec<&str> = TensorType::ALL.iter().map(|kind| kind.name()).collect();
        Err(GgufError::Unsupported(format!(
            "the tensor {} has the type {other}, which isn't read; take a file of {}",
            quoted(tensor),
            known.join(", ")
        )))
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
