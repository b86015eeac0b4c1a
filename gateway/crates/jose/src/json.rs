//! JSON in which each name of an object is unique, at any depth. Otherwise two parsers could read two different tokens.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Deeper than any useful claim.
const DEPTH_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// Whole numbers beyond 2^53 lose their last digits: no claim of ours is that large.
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

#[derive(Debug, thiserror::Error)]
#[error("not strict JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

impl Value {
    /// # Errors
    /// When it is not one JSON text, a name is repeated, or it is nested too deep.
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let value = Nested(DEPTH_MAX).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }

    /// The member of an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        }
    }

    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Nested(DEPTH_MAX).deserialize(deserializer)
    }
}

/// A value that may have this many more levels of nesting.
#[derive(Clone, Copy)]
struct Nested(usize);

impl Nested {
    fn inside<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[allow(clippy::cast_precision_loss)] // see `Value::Number`
impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut object: Vec<(String, Value)> = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            // Members are few: a token of 8 KiB has at most a few hundred.
            if object.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom("a name appears twice"));
            }
            object.push((name, members.next_value_seed(inside)?));
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn a_repeated_name_is_refused_however_it_is_written() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":{"a":1,"a":2}}"#, r#"[{"a":1,"a":2}]"#] {
            assert!(Value::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Value::parse(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn invalid_json_is_refused() {
        for text in ["", "{", "{} {}", "{}x", "\u{feff}{}", "NaN", "1e999", r#""\ud800""#, "\"\n\"", "{'a':1}", "[1,]", "01"] {
            assert!(Value::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Value::parse(b"\"\xff\"").is_err());
        assert!(Value::parse("[".repeat(5000).as_bytes()).is_err());
        assert!(Value::parse(format!("{}1{}", "[".repeat(16), "]".repeat(16)).as_bytes()).is_ok());
        assert!(Value::parse(format!("{}1{}", "[".repeat(17), "]".repeat(17)).as_bytes()).is_err());
    }
}
