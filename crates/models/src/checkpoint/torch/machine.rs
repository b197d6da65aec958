//! The stack machine of pickles, as far as a state dict needs it.
//!
//! Opcodes are those that Python writes for such objects in the protocols 2 to 4 (`Lib/pickle.py` documents them). An opcode
//! outside of that list is an error that names it. Each opcode makes at most one value and takes a byte at least, and
//! values, stack, memo and open tuples are limited, so a pickle costs no more memory than a small multiple of its length.

use std::collections::BTreeMap;

use super::quoted;
use super::reader::Reader;
use super::value::{Dict, Global, Id, Storage, Value, View};

/// Largest number of values, of entries of the stack, and of the memo. A tensor needs about twenty.
const VALUE_LIMIT: usize = 1 << 20;
/// Most marks at once. A state dict has four: the dict, a tensor's arguments, its storage's.
const MARK_LIMIT: usize = 32;
/// Largest number of dimensions of a tensor; those of models have up to five.
const DIMENSION_LIMIT: usize = 8;

pub(super) const PROTO: u8 = 0x80;

/// A pickle that was run to its end.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    /// The first byte after the pickle.
    pub(super) end: usize,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle that starts at `start`.
    pub(super) fn run(bytes: &'a [u8], start: usize) -> Result<Self, String> {
        let mut machine = Machine {
            reader: Reader::at(bytes, start),
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
        };
        loop {
            let place = machine.reader.position();
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Self { values: machine.values, root, end: machine.reader.position() }),
                Err(reason) => return Err(format!("at byte {place} of its pickle: {reason}")),
            }
        }
    }

    /// The value that the pickle is of.
    pub(super) fn root(&self) -> &Value<'a> {
        self.value(self.root)
    }

    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id).unwrap_or(&Value::None)
    }

    /// All storages that the pickle names, in its order.
    pub(super) fn storages(&self) -> impl Iterator<Item = Storage<'a>> {
        self.values.iter().filter_map(|value| if let Value::Storage(storage) = value { Some(*storage) } else { None })
    }
}

struct Machine<'a> {
    reader: Reader<'a>,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Carries out one opcode; the last one returns the pickle's value.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let opcode = self.reader.u8()?;
        match opcode {
            PROTO => match self.reader.u8()? {
                2..=4 => {}
                other => return Err(format!("protocol {other} is not read, 2 to 4 are")),
            },
            // FRAME: a hint for readers of streams.
            0x95 => drop(self.reader.u64()?),
            b'(' => self.mark()?,
            b'.' => return self.finish().map(Some),
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let number = i32::from_le_bytes(self.reader.array()?);
                self.push(Value::Integer(number.into()))?;
            }
            b'K' => {
                let number = self.reader.u8()?;
                self.push(Value::Integer(number.into()))?;
            }
            b'M' => {
                let number = self.reader.u16()?;
                self.push(Value::Integer(number.into()))?;
            }
            0x8a => self.long()?,
            // BINUNICODE, and BINSTRING of Python 2.
            b'X' | b'T' => {
                let length = self.reader.u32()?;
                self.text(length as usize)?;
            }
            // SHORT_BINUNICODE, and SHORT_BINSTRING of Python 2.
            0x8c | b'U' => {
                let length = self.reader.u8()?;
                self.text(length.into())?;
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items))?;
            }
            0x85..=0x87 => {
                let items = self.pop_last(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(items))?;
            }
            b']' => self.push(Value::List(Vec::new()))?,
            b'a' => {
                let items = self.pop_last(1)?;
                self.append(items)?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Value::Dict(Dict::default()))?,
            b's' => {
                let items = self.pop_last(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' => {
                let place = self.reader.u8()?;
                self.memorise(place.into())?;
            }
            b'r' => {
                let place = self.reader.u32()?;
                self.memorise(place)?;
            }
            // MEMOIZE
            0x94 => self.memorise(u32::try_from(self.memo.len()).unwrap_or(u32::MAX))?,
            b'h' => {
                let place = self.reader.u8()?;
                self.recall(place.into())?;
            }
            b'j' => {
                let place = self.reader.u32()?;
                self.recall(place)?;
            }
            b'c' => {
                let (module, name) = (self.reader.line()?, self.reader.line()?);
                self.push(Value::Global(Global::named(module, name)?))?;
            }
            // STACK_GLOBAL
            0x93 => {
                let [module, name] = self.pop_array()?;
                let (module, name) = (self.as_text(module)?, self.as_text(name)?);
                self.push(Value::Global(Global::named(module, name)?))?;
            }
            b'Q' => self.persistent_id()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            other => return Err(refused(other)),
        }
        Ok(None)
    }

    fn value(&self, id: Id) -> Result<&Value<'a>, String> {
        self.values.get(id).ok_or_else(|| "a value is missing".to_string())
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        if self.values.len() >= VALUE_LIMIT {
            return Err(format!("it makes more than {VALUE_LIMIT} values"));
        }
        self.values.push(value);
        self.push_id(self.values.len() - 1)
    }

    fn push_id(&mut self, id: Id) -> Result<(), String> {
        if self.stack.len() >= VALUE_LIMIT {
            return Err(format!("its stack has more than {VALUE_LIMIT} entries"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), String> {
        if self.marks.len() >= MARK_LIMIT {
            return Err(format!("it opens more than {MARK_LIMIT} marks, deeper than any state dict"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    /// The last `count` values, none of them from before the last mark.
    fn pop_last(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= floor);
        Ok(self.stack.split_off(start.ok_or("its stack is empty")?))
    }

    fn pop_array<const N: usize>(&mut self) -> Result<[Id; N], String> {
        self.pop_last(N)?.try_into().map_err(|_| "its stack is empty".to_string())
    }

    /// The value on top, which stays there.
    fn top(&self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[Id]>::last).copied().ok_or_else(|| "its stack is empty".to_string())
    }

    fn finish(&mut self) -> Result<Id, String> {
        match (self.stack.as_slice(), self.marks.as_slice()) {
            (&[root], []) => Ok(root),
            _ => Err(format!("it ends with {} values and {} open marks", self.stack.len(), self.marks.len())),
        }
    }

    /// LONG1: a length, then a number of that many bytes in two's complement.
    fn long(&mut self) -> Result<(), String> {
        const BYTES: usize = size_of::<i128>();
        let length = usize::from(self.reader.u8()?);
        if length > BYTES {
            return Err(format!("it has a number of {length} bytes"));
        }
        let bytes = self.reader.take(length)?;
        let sign = if bytes.last().is_some_and(|&last| last >= 0x80) { 0xff } else { 0 };
        let mut wide = [sign; BYTES];
        wide[..length].copy_from_slice(bytes);
        self.push(Value::Integer(i128::from_le_bytes(wide)))
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = self.reader.text(length)?;
        self.push(Value::Text(text))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        match self.values.get_mut(top) {
            Some(Value::List(list)) => {
                list.extend(items);
                Ok(())
            }
            other => Err(format!("it appends to {}", kind(other.as_deref()))),
        }
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        let top = self.top()?;
        match self.values.get_mut(top) {
            Some(Value::Dict(dict)) if rest.is_empty() => {
                dict.entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            Some(Value::Dict(_)) => Err("a key has no value".to_string()),
            other => Err(format!("it sets items of {}", kind(other.as_deref()))),
        }
    }

    fn memorise(&mut self, place: u32) -> Result<(), String> {
        let top = self.top()?;
        if self.memo.len() >= VALUE_LIMIT {
            return Err(format!("its memo has more than {VALUE_LIMIT} entries"));
        }
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<(), String> {
        let id = *self.memo.get(&place).ok_or_else(|| format!("its memo has nothing at {place}"))?;
        self.push_id(id)
    }

    /// BINPERSID: in a state dict, always a storage.
    fn persistent_id(&mut self) -> Result<(), String> {
        let [id] = self.pop_array()?;
        let Value::Tuple(items) = self.value(id)? else {
            return Err(format!("a persistent id is {}, not a tuple", self.value(id)?.kind()));
        };
        let (&[what, class, key, _device, count], rest) =
            items.split_first_chunk().ok_or("a persistent id is too short")?;
        let what = self.as_text(what)?;
        if what != "storage" {
            return Err(format!("a persistent id of {} is not allowed, only of `storage`", quoted(what)));
        }
        let Value::Global(Global::Storage(dtype)) = *self.value(class)? else {
            return Err(format!("the class of a storage is {}", self.value(class)?.kind()));
        };
        // Up to torch 1.5 there may be the part of another storage that this one is.
        if !rest.iter().all(|&id| matches!(self.value(id), Ok(Value::None))) {
            return Err("a storage is a part of another storage, which is not read".to_string());
        }
        let storage = Storage { key: self.as_text(key)?, dtype, count: self.as_size(count)? };
        self.push(Value::Storage(storage))
    }

    /// REDUCE: the call of a function.
    fn reduce(&mut self) -> Result<(), String> {
        let [function, arguments] = self.pop_array()?;
        let Value::Global(global) = *self.value(function)? else {
            return Err(format!("it calls {}", self.value(function)?.kind()));
        };
        let Value::Tuple(arguments) = self.value(arguments)? else {
            return Err(format!("it calls something with {}, not a tuple", self.value(arguments)?.kind()));
        };
        let made = match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => Value::Dict(Dict { ordered: true, ..Dict::default() }),
            (Global::RebuildTensor, &[storage, offset, shape, strides, requires_grad, hooks]) => {
                self.no_extras(requires_grad, hooks)?;
                self.view(storage, offset, shape, strides)?
            }
            (Global::RebuildTensor, &[storage, offset, shape, strides, requires_grad, hooks, metadata]) => {
                self.no_extras(requires_grad, hooks)?;
                if !self.is_nothing(metadata)? {
                    return Err("a tensor has metadata (conjugated or negated), which is not read".to_string());
                }
                self.view(storage, offset, shape, strides)?
            }
            (Global::RebuildParameter, &[tensor, requires_grad, hooks]) => {
                self.no_extras(requires_grad, hooks)?;
                let Value::Tensor(view) = self.value(tensor)? else {
                    return Err(format!("a parameter is made of {}", self.value(tensor)?.kind()));
                };
                Value::Tensor(view.clone())
            }
            (Global::Storage(_), _) => return Err("it makes a storage of its own".to_string()),
            (Global::OrderedDict | Global::RebuildTensor | Global::RebuildParameter, others) => {
                return Err(format!("it calls {global:?} with {} arguments", others.len()));
            }
        };
        self.push(made)
    }

    /// Refuses hooks, which are code.
    fn no_extras(&self, requires_grad: Id, hooks: Id) -> Result<(), String> {
        if !matches!(self.value(requires_grad)?, Value::Bool(_)) {
            return Err(format!("requires_grad of a tensor is {}", self.value(requires_grad)?.kind()));
        }
        if self.is_nothing(hooks)? { Ok(()) } else { Err("a tensor has backward hooks, which are code".to_string()) }
    }

    /// Whether a value is None or an empty dict.
    fn is_nothing(&self, id: Id) -> Result<bool, String> {
        let value = self.value(id)?;
        Ok(matches!(value, Value::None) || matches!(value, Value::Dict(dict) if dict.entries.is_empty()))
    }

    fn view(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<Value<'a>, String> {
        let Value::Storage(storage) = *self.value(storage)? else {
            return Err(format!("a tensor is made of {}, not of a storage", self.value(storage)?.kind()));
        };
        let (shape, strides) = (self.as_sizes(shape)?, self.as_sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(format!("a tensor has {} dimensions, but {} strides", shape.len(), strides.len()));
        }
        Ok(Value::Tensor(Box::new(View { storage, offset: self.as_size(offset)?, shape, strides })))
    }

    /// BUILD: attributes of an object. A state dict has one that is of no use here.
    fn build(&mut self) -> Result<(), String> {
        let [object, state] = self.pop_array()?;
        if !matches!(self.value(object)?, Value::Dict(Dict { ordered: true, .. })) {
            let kind = self.value(object)?.kind();
            return Err(format!("BUILD of {kind} is not allowed, only of an OrderedDict"));
        }
        let Value::Dict(state) = self.value(state)? else {
            return Err(format!("BUILD with {} is not allowed, only with a dict", self.value(state)?.kind()));
        };
        for &(key, _) in &state.entries {
            let name = self.as_text(key)?;
            if name != "_metadata" {
                return Err(format!("the attribute {} of a dict is not allowed", quoted(name)));
            }
        }
        self.push_id(object)
    }

    fn as_text(&self, id: Id) -> Result<&'a str, String> {
        let value = self.value(id)?;
        if let Value::Text(text) = value {
            Ok(text)
        } else {
            Err(format!("{} stands where a text belongs", value.kind()))
        }
    }

    fn as_size(&self, id: Id) -> Result<usize, String> {
        let value = self.value(id)?;
        let Value::Integer(number) = value else {
            return Err(format!("{} stands where a size belongs", value.kind()));
        };
        usize::try_from(*number).map_err(|_| format!("{number} is no size"))
    }

    fn as_sizes(&self, id: Id) -> Result<Vec<usize>, String> {
        let Value::Tuple(items) = self.value(id)? else {
            return Err(format!("{} stands where a tuple of sizes belongs", self.value(id)?.kind()));
        };
        if items.len() > DIMENSION_LIMIT {
            return Err(format!("a tensor has {} dimensions", items.len()));
        }
        items.iter().map(|&item| self.as_size(item)).collect()
    }
}

fn kind(value: Option<&Value>) -> &'static str {
    value.map_or("nothing", Value::kind)
}

/// Opcodes of Python that a state dict has no use for, by name.
const OTHERS: [(u8, &str); 27] = [
    (b'0', "POP"),
    (b'1', "POP_MARK"),
    (b'2', "DUP"),
    (b'B', "BINBYTES"),
    (b'C', "SHORT_BINBYTES"),
    (b'F', "FLOAT"),
    (b'G', "BINFLOAT"),
    (b'I', "INT"),
    (b'L', "LONG"),
    (b'P', "PERSID"),
    (b'S', "STRING"),
    (b'V', "UNICODE"),
    (b'd', "DICT"),
    (b'g', "GET"),
    (b'i', "INST"),
    (b'l', "LIST"),
    (b'o', "OBJ"),
    (b'p', "PUT"),
    (0x81, "NEWOBJ"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (0x8b, "LONG4"),
    (0x8d, "BINUNICODE8"),
    (0x8f, "EMPTY_SET"),
    (0x92, "NEWOBJ_EX"),
    (0x96, "BYTEARRAY8"),
];

fn refused(opcode: u8) -> String {
    match OTHERS.iter().find(|(code, _)| *code == opcode) {
        Some((_, name)) => format!("the opcode {name} is not allowed: no state dict of plain tensors has it"),
        None => format!("{opcode:#04x} is no opcode of a state dict"),
    }
}
