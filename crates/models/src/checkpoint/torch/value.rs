//! What the pickle of a state dict is made of.

use safetensors::tensor::Dtype;

use super::quoted;

/// The place of a value among all values of a pickle.
///
/// Values refer to each other by it, so a pickle that nests its values deeply, or in a circle, costs no stack.
pub(super) type Id = usize;

/// A value of a pickle. Text is not copied out of the file.
#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Integer(i128),
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// A dict in the order of insertion; a later entry replaces an earlier one of the same key.
    Dict(Dict),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(Box<View<'a>>),
}

/// The entries of a dict or an OrderedDict.
#[derive(Debug, Default)]
pub(super) struct Dict {
    pub(super) entries: Vec<(Id, Id)>,
    /// Whether it is an OrderedDict, which alone may have attributes.
    pub(super) ordered: bool,
}

/// The classes and functions that a state dict of plain tensors needs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

/// A run of numbers that tensors are views of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: Dtype,
    /// How many numbers the file claims that it has.
    pub(super) count: usize,
}

/// A tensor as a strided view of a storage, all in elements. Nothing about it is checked yet.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl Storage<'_> {
    /// Bytes of one number.
    pub(super) fn width(&self) -> usize {
        self.dtype.bitsize() / 8
    }
}

impl Global {
    /// The global of a name, if it is one of the few that are known.
    pub(super) fn named(module: &str, name: &str) -> Result<Self, String> {
        let known = match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch.storage", "UntypedStorage") => Some(Self::Storage(Dtype::U8)),
            ("torch", _) => dtype_of_storage(name).map(Self::Storage),
            _ => None,
        };
        let is_of_torch = module == "torch" || module.starts_with("torch.");
        known.ok_or_else(|| match (quoted(&format!("{module}.{name}")), is_of_torch) {
            (full, false) => format!("{full} is not allowed: the file would run code"),
            (full, true) => format!("{full} is not allowed: no plain tensor needs it, and the file would run it"),
        })
    }
}

/// The type of the numbers in a storage class of torch.
fn dtype_of_storage(class: &str) -> Option<Dtype> {
    Some(match class {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

impl Value<'_> {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Integer(_) => "an integer",
            Value::Text(_) => "a text",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "a class or function",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}
