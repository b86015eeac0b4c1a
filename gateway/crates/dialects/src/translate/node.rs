//! A JSON value as it is written in the text, read level by level. Nothing is built: lists and objects are iterated, strings stay as written.

use super::error::{Path, TranslationError};
use crate::json::Cursor;
use std::borrow::Cow;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node<'a>(pub &'a str);

impl<'a> Node<'a> {
    /// The whole text as one value; `None` when it is not exactly one.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.peek();
        let start = cursor.at;
        cursor.value(0).ok()?;
        let end = cursor.at;
        cursor.peek().is_none().then(|| Self(&text[start..end]))
    }

    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    pub fn is_string(self) -> bool {
        self.0.starts_with('"')
    }

    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    pub fn is_list(self) -> bool {
        self.0.starts_with('[')
    }

    /// Requests nothing: null, false, zero, or empty.
    pub fn is_neutral(self) -> bool {
        let text = self.0;
        matches!(text, "null" | "false" | "\"\"")
            || text.parse() == Ok(0.0_f64)
            || (self.is_list() || self.is_object()) && text[1..].trim_start().len() == 1
    }

    pub fn boolean(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    pub fn number(self) -> Option<f64> {
        if self.is_string() { None } else { self.0.parse().ok() }
    }

    pub fn unsigned(self) -> Option<u64> {
        self.0.parse().ok()
    }

    /// A string's characters, escapes undone.
    pub fn text(self) -> Option<Cow<'a, str>> {
        let inner = self.inner()?;
        if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
            return Some(Cow::Borrowed(inner));
        }
        serde_json::from_str(self.0).ok().map(Cow::Owned)
    }

    /// A string as written, without its quotes.
    pub fn inner(self) -> Option<&'a str> {
        self.0.strip_prefix('"')?.strip_suffix('"')
    }

    pub fn items(self) -> Items<'a> {
        Items::of(self, b'[')
    }

    pub fn members(self) -> Members<'a> {
        Members(Items::of(self, b'{'))
    }

    /// The last member of this name.
    pub fn get(self, name: &str) -> Option<Self> {
        self.members().filter(|(key, _)| *key == name).last().map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// Several members in one pass, each the last of its name; null counts as absent.
    pub fn pick<const N: usize>(self, names: [&str; N]) -> [Option<Self>; N] {
        let mut picked = [None; N];
        for (key, value) in self.members() {
            if let Some(at) = names.iter().position(|name| *name == key) {
                picked[at] = Some(value).filter(|value| !value.is_null());
            }
        }
        picked
    }

    /// # Errors
    /// When it is no list.
    pub fn list(self, path: &Path<'_>) -> Result<Items<'a>, TranslationError> {
        if self.is_list() { Ok(self.items()) } else { Err(path.wrong_type("must be a list.")) }
    }

    /// # Errors
    /// When it is no object.
    pub fn object(self, path: &Path<'_>) -> Result<Members<'a>, TranslationError> {
        if self.is_object() { Ok(self.members()) } else { Err(path.wrong_type("must be an object.")) }
    }

    /// # Errors
    /// When it is no string.
    pub fn string(self, path: &Path<'_>) -> Result<Self, TranslationError> {
        if self.is_string() { Ok(self) } else { Err(path.wrong_type("must be a string.")) }
    }

    /// # Errors
    /// When it is not true or false.
    pub fn flag(self, path: &Path<'_>) -> Result<bool, TranslationError> {
        self.boolean().ok_or_else(|| path.wrong_type("must be true or false."))
    }
}

/// The values of a list; of anything else, none.
pub(super) struct Items<'a> {
    text: &'a str,
    cursor: Cursor<'a>,
    open: bool,
}

impl<'a> Items<'a> {
    fn of(node: Node<'a>, bracket: u8) -> Self {
        let mut cursor = Cursor::new(node.0.as_bytes());
        let open = cursor.take(bracket).is_ok();
        Self { text: node.0, cursor, open }
    }

    fn value(&mut self) -> Option<Node<'a>> {
        self.cursor.peek()?;
        let start = self.cursor.at;
        self.cursor.value(0).ok()?;
        let value = Node(&self.text[start..self.cursor.at]);
        if self.cursor.peek() == Some(b',') {
            self.cursor.at += 1;
        }
        Some(value)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        if !self.open || self.cursor.peek() == Some(b']') {
            return None;
        }
        self.value()
    }
}

/// The members of an object, keys as written.
pub(super) struct Members<'a>(Items<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Node<'a>);

    fn next(&mut self) -> Option<(&'a str, Node<'a>)> {
        if !self.0.open || self.0.cursor.peek() == Some(b'}') {
            return None;
        }
        let key = self.0.cursor.string().ok()?;
        self.0.cursor.take(b':').ok()?;
        Some((&self.0.text[key.start..key.end], self.0.value()?))
    }
}
