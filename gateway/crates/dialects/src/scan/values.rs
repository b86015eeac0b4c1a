//! Values and members, accepted only where every parser reads them alike.

use super::error::ScanError;
use crate::json::{Cursor, Text};
use std::borrow::Cow;

/// Calls `each` with every key of an object whose `{` was read; `each` must read the value. Ends after the `}`.
pub(crate) fn members<'a>(
    cursor: &mut Cursor<'a>,
    mut each: impl FnMut(&mut Cursor<'a>, &'a [u8]) -> Result<(), ScanError>,
) -> Result<(), ScanError> {
    if cursor.peek() == Some(b'}') {
        cursor.at += 1;
        return Ok(());
    }
    loop {
        let key = cursor.string()?;
        if key.escaped {
            return Err(ScanError::EscapedKey);
        }
        cursor.take(b':')?;
        cursor.peek();
        each(cursor, &cursor.text[key.start..key.end])?;
        if cursor.peek() != Some(b',') {
            return Ok(cursor.take(b'}')?);
        }
        cursor.at += 1;
    }
}

pub(crate) fn decode<'a>(body: &'a [u8], text: Text, key: &'static str) -> Result<Cow<'a, str>, ScanError> {
    if text.escaped {
        let quoted = &body[text.start - 1..=text.end];
        return serde_json::from_slice(quoted).map(Cow::Owned).map_err(|_| ScanError::Type(key, "a string of whole characters"));
    }
    std::str::from_utf8(&body[text.start..text.end]).map(Cow::Borrowed).map_err(|_| ScanError::Utf8)
}

/// True, false or null (= false). The cursor is at the value.
pub(super) fn boolean(cursor: &mut Cursor<'_>, key: &'static str) -> Result<bool, ScanError> {
    let start = cursor.at;
    cursor.value(2)?;
    match &cursor.text[start..cursor.at] {
        b"true" => Ok(true),
        b"false" | b"null" => Ok(false),
        _ => Err(ScanError::Type(key, "true or false")),
    }
}

/// A plain non-negative integer or null: `1e3` and `12.0` are read differently by engines.
pub(super) fn integer(cursor: &mut Cursor<'_>, key: &'static str) -> Result<Option<u64>, ScanError> {
    let start = cursor.at;
    cursor.value(1)?;
    match &cursor.text[start..cursor.at] {
        b"null" => Ok(None),
        digits => {
            let number = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|c| c.is_ascii_digit()));
            number.and_then(|text| text.parse().ok()).map(Some).ok_or(ScanError::Type(key, "a whole number"))
        }
    }
}

/// Null and empty lists request nothing.
pub(super) fn absent(cursor: &mut Cursor<'_>, otherwise: ScanError) -> Result<(), ScanError> {
    let start = cursor.at;
    cursor.value(1)?;
    if matches!(&cursor.text[start..cursor.at], b"null" | b"[]") { Ok(()) } else { Err(otherwise) }
}
