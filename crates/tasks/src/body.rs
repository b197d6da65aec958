//! The envelope of every task: `{"inputs": ..., "parameters": {...}}`.
//!
//! Parameters may also stand at the root, where some clients put them. `options` (the
//! `use_cache` and `wait_for_model` of the old hosted API) is accepted and means nothing to a task;
//! [`use_cache`] reads it for those who keep outputs.
//! Any other name is an error that lists the known ones: a parameter that is silently ignored
//! is a wrong answer.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        DeserializeSeed, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::MapAccessDeserializer,
    },
};

use crate::error::TaskError;

/// A parsed envelope.
pub(crate) struct Body<I, P> {
    pub(crate) inputs: I,
    pub(crate) parameters: P,
}

/// Reads a whole body, a JSON object, as `T`; errors name the path, the line and the column.
pub fn from_json<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, TaskError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| TaskError::from_json(&error.path().to_string(), error.inner()))?;
    json.end().map_err(|error| TaskError::from_json(".", &error))?;
    Ok(value)
}

/// What `options.use_cache` of a body says, if it says anything.
pub fn use_cache(body: &[u8]) -> Option<bool> {
    #[derive(Deserialize)]
    struct Envelope {
        options: Option<Options>,
    }
    #[derive(Deserialize)]
    struct Options {
        use_cache: Option<bool>,
    }
    const NAME: &[u8] = b"use_cache";
    // Bodies without it, which is nearly all, are not read twice.
    if !body.windows(NAME.len()).any(|window| window == NAME) {
        return None;
    }
    serde_json::from_slice::<Envelope>(body).ok()?.options?.use_cache
}

impl<'de, I, P> Deserialize<'de> for Body<I, P>
where
    I: Deserialize<'de>,
    P: Deserialize<'de> + Default + PartialEq,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BodyVisitor(PhantomData))
    }
}

struct BodyVisitor<I, P>(PhantomData<(I, P)>);

impl<'de, I, P> Visitor<'de> for BodyVisitor<I, P>
where
    I: Deserialize<'de>,
    P: Deserialize<'de> + Default + PartialEq,
{
    type Value = Body<I, P>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let (mut inputs, mut nested) = (None, None);
        let root = Root { map, inputs: &mut inputs, nested: &mut nested };
        let at_root = P::deserialize(MapAccessDeserializer::new(root))?;
        let inputs = inputs.ok_or_else(|| Error::missing_field("inputs"))?;
        let nested: P = nested.unwrap_or_default();
        if at_root != P::default() && nested != P::default() {
            return Err(Error::custom("parameters stand both at the root and in `parameters`; use one of the two"));
        }
        let parameters = if nested == P::default() { at_root } else { nested };
        Ok(Body { inputs, parameters })
    }
}

/// The fields of the envelope, less those that are not parameters: these it keeps.
struct Root<'a, A, I, P> {
    map: A,
    inputs: &'a mut Option<I>,
    nested: &'a mut Option<P>,
}

impl<'de, A, I, P> MapAccess<'de> for Root<'_, A, I, P>
where
    A: MapAccess<'de>,
    I: Deserialize<'de>,
    P: Deserialize<'de>,
{
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            match key.as_str() {
                "inputs" if self.inputs.is_some() => return Err(Error::duplicate_field("inputs")),
                "inputs" => *self.inputs = Some(self.map.next_value()?),
                "parameters" => *self.nested = self.map.next_value::<Option<Object<P>>>()?.map(|object| object.0),
                "options" => drop(self.map.next_value::<IgnoredAny>()?),
                _ => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A `T` that is written as an object; serde would also take a struct as a list of its fields.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// `T` or a list of `T`. It is read where `T` is a string or an object.
#[derive(Clone, Debug, PartialEq)]
pub struct OneOrMany<T> {
    /// What was given.
    pub items: Vec<T>,
    /// Whether it was given without a list around it.
    pub single: bool,
}

impl<T> OneOrMany<T> {
    /// One item, without a list.
    pub fn one(item: T) -> Self {
        Self { items: vec![item], single: true }
    }

    /// A list.
    pub fn many(items: Vec<T>) -> Self {
        Self { items, single: false }
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.items.as_slice() {
            [item] if self.single => item.serialize(serializer),
            items => items.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a list of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(OneOrMany::one)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::one)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(OneOrMany::many(items))
    }
}

#[cfg(test)]
mod tests {
    use super::use_cache;

    #[test]
    fn the_cache_is_asked_for_in_options_only() {
        let said = |body: &str| use_cache(body.as_bytes());
        assert_eq!(said(r#"{"inputs": "a", "options": {"wait_for_model": true, "use_cache": true}}"#), Some(true));
        assert_eq!(said(r#"{"options": {"use_cache": false}, "inputs": [1]}"#), Some(false));
        for body in
            [r#"{"inputs": "use_cache"}"#, r#"{"use_cache": true}"#, r#"{"options": {"use_cache": 1}}"#, "use_cache"]
        {
            assert_eq!(said(body), None, "{body}");
        }
    }
}
