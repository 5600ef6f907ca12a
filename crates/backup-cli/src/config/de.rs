//! From TOML values to structs, with errors that name the field.
//!
//! serde's own message for a wrong type repeats the value, which may be a secret, and the `toml`
//! crate forgets the path inside arrays. So this is a deserializer of our own: every error has
//! the path of the field, says what is wrong and what would be right, and never a value.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Value;

use super::words::{list, nearest};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// `jobs.orders.sinks[1]`; empty for the whole file.
    pub(crate) path: String,
    /// One line, without the path.
    pub(crate) message: String,
    placed: bool,
}

impl Mistake {
    /// A mistake in the field at `path`.
    pub(crate) fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            placed: true,
        }
    }

    fn unplaced(message: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            message: message.into(),
            placed: false,
        }
    }

    /// The innermost place wins: what is placed already stays there.
    fn place(self, path: &str) -> Self {
        if self.placed {
            return self;
        }
        let path = match self.path.as_str() {
            "" => path.to_owned(),
            field => join(path, field),
        };
        Self::at(path, self.message)
    }
}

/// `path.name`, with quotes where TOML needs them.
pub(crate) fn join(path: &str, name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name = if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    };
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
    }
}

impl Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for Mistake {}

impl serde::de::Error for Mistake {
    fn custom<T: Display>(message: T) -> Self {
        Self::unplaced(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
            Unexpected::Float(_) => "a number with a fraction",
            Unexpected::Char(_) | Unexpected::Str(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "something else",
        };
        Self::unplaced(format!("must be {}, not {found}", wanted(expected)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::unplaced(format!("must be {}", wanted(expected)))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::unplaced(format!("must be {}", wanted(expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::unplaced(match nearest(variant, expected) {
            Some(near) => format!("{variant:?} is not known; did you mean {near:?}?"),
            None => format!("{variant:?} is not known; write one of {}", list(expected)),
        })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unplaced(match nearest(field, expected) {
            Some(near) => format!("unknown field; did you mean `{near}`?"),
            None => format!("unknown field; known here: {}", expected.join(", ")),
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            path: field.to_owned(),
            message: match super::words::example(field) {
                Some(example) => format!("missing; write `{example}`"),
                None => "missing".to_owned(),
            },
            placed: false,
        }
    }
}

/// serde's words for what it wants, in words of TOML.
fn wanted(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list, [..]".into(),
        "a map" => "a table".into(),
        "path string" => "a path".into(),
        _ if text.starts_with("struct ") => "a table".into(),
        _ if text.starts_with("enum ") => "a string".into(),
        _ => text,
    }
}

/// Reads `value`, which stands at `path`.
pub(crate) fn read<'de, T: serde::Deserialize<'de>>(
    value: &'de Value,
    path: &str,
) -> Result<T, Mistake> {
    T::deserialize(Field { value, path }).map_err(|e| e.place(path))
}

#[derive(Clone, Copy)]
struct Field<'de, 'p> {
    value: &'de Value,
    path: &'p str,
}

impl<'de> Deserializer<'de> for Field<'de, '_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(bool) => visitor.visit_bool(*bool),
            Value::Datetime(time) => visitor.visit_string(time.to_string()),
            Value::Array(items) => visitor.visit_seq(Items {
                rest: items.iter().enumerate(),
                path: self.path,
            }),
            Value::Table(table) => visitor.visit_map(Fields {
                rest: table.iter(),
                value: None,
                path: self.path,
            }),
        }
        .map_err(|e| e.place(self.path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.value {
            Value::String(text) => visitor
                .visit_enum(text.as_str().into_deserializer())
                .map_err(|e: Mistake| e.place(self.path)),
            _ => Err(Mistake::at(self.path, "must be a string")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'de, 'p> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    path: &'p str,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mistake> {
        let Some((index, value)) = self.rest.next() else {
            return Ok(None);
        };
        let path = format!("{}[{index}]", self.path);
        seed.deserialize(Field { value, path: &path })
            .map(Some)
            .map_err(|e| e.place(&path))
    }
}

struct Fields<'de, 'p> {
    rest: toml::map::Iter<'de, String, Value>,
    value: Option<(&'de Value, String)>,
    path: &'p str,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mistake> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        let path = join(self.path, name);
        let name: StrDeserializer<'_, Mistake> = String::as_str(name).into_deserializer();
        let key = seed.deserialize(name).map_err(|e| e.place(&path))?;
        self.value = Some((value, path));
        Ok(Some(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Mistake> {
        let Some((value, path)) = self.value.take() else {
            return Err(Mistake::at(self.path, "a key without a value"));
        };
        seed.deserialize(Field { value, path: &path })
            .map_err(|e| e.place(&path))
    }
}
