//! Forms with files (`multipart/form-data`, RFC 7578 on RFC 2046): the position of `model`, and proof that no parser reads another one.
//!
//! Parsers of this format differ more than those of JSON: in line ends, in what may follow a delimiter, in duplicate names, in the escapes of
//! names. A body that two of them could read differently is refused; what common clients send is accepted.

mod disposition;

use crate::splice::Pieces;
use bytes::Bytes;
use disposition::{Disposition, Parameters};
use memchr::memmem;
use tenon_problem::ProblemCode;

/// Parts of one form. OpenAI's largest has about twenty.
const PARTS_MAX: usize = 256;
/// Headers of one part.
const PART_HEAD_MAX: usize = 8 << 10;
/// Fields that decide where a call goes, what it may cost or how it is answered. Each may appear once.
const FIELDS: [&str; 5] = ["model", "stream", "n", "response_format", "prompt"];
const MODEL_BYTES_MAX: usize = 256;

/// What the gateway reads of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct FormHead<'a> {
    pub model: &'a str,
    /// The position of the model's name.
    pub model_at: (usize, usize),
    pub stream: bool,
    /// Requested answers.
    pub choices: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("The body must be multipart/form-data with one `boundary` of 1 to 70 plain characters.")]
    ContentType,
    #[error("The form's parts are not separated by its boundary.")]
    Framing,
    #[error("A part of the form has a header that parsers could read differently.")]
    PartHead,
    #[error("The form has too many parts.")]
    TooManyParts,
    #[error("The field `{0}` appears twice. Send it once.")]
    Duplicate(&'static str),
    #[error("The field `{0}` must be {1}.")]
    Value(&'static str, &'static str),
    #[error("The field `{0}` is missing.")]
    Missing(&'static str),
}

impl FormError {
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Duplicate(field) | Self::Value(field, _) | Self::Missing(field) => Some(field),
            _ => None,
        }
    }

    #[must_use]
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::ContentType => ProblemCode::UnsupportedMediaType,
            Self::Framing | Self::PartHead | Self::TooManyParts => ProblemCode::InvalidForm,
            Self::Duplicate(_) => ProblemCode::DuplicateKey,
            Self::Value(..) => ProblemCode::InvalidType,
            Self::Missing(_) => ProblemCode::MissingParameter,
        }
    }
}

/// Reads a form.
///
/// # Errors
/// When parsers could read it differently, or a known field has a wrong value.
pub fn scan_form<'a>(content_type: &[u8], body: &'a [u8]) -> Result<FormHead<'a>, FormError> {
    let boundary = boundary_of(content_type).ok_or(FormError::ContentType)?;
    let mut builder = FormHeadBuilder::default();
    let mut parts = Parts::new(body, &boundary)?;
    let mut count = 0;
    while let Some((start, end)) = parts.next()? {
        count += 1;
        if count > PARTS_MAX {
            return Err(FormError::TooManyParts);
        }
        builder.part(body, start, end)?;
    }
    let (start, end) = builder.model.ok_or(FormError::Missing("model"))?;
    let model = plain_text(&body[start..end], MODEL_BYTES_MAX).filter(|name| !name.is_empty());
    let model = model.ok_or(FormError::Value("model", "a model's name"))?;
    Ok(FormHead { model, model_at: (start, end), stream: builder.stream, choices: builder.choices.max(1) })
}

/// The form with another model name; the other bytes are not copied.
#[must_use]
pub fn splice_form(body: &Bytes, model_at: (usize, usize), upstream_model: Option<&str>) -> Pieces {
    match upstream_model {
        None => Pieces::One(body.clone()),
        Some(name) => {
            let pieces = vec![body.slice(..model_at.0), Bytes::copy_from_slice(name.as_bytes()), body.slice(model_at.1..)];
            Pieces::Many(pieces.into_iter())
        }
    }
}

/// `multipart/form-data; boundary=…`: the parameter once, of the characters RFC 2046 §5.1.1 allows, not ending in a space.
fn boundary_of(content_type: &[u8]) -> Option<Vec<u8>> {
    let (media_type, parameters) = Parameters::after_word(content_type)?;
    if !media_type.eq_ignore_ascii_case(b"multipart/form-data") {
        return None;
    }
    let mut boundary = None;
    for parameter in parameters {
        let (name, value) = parameter?;
        if name.eq_ignore_ascii_case(b"boundary") && boundary.replace(value.to_vec()).is_some() {
            return None;
        }
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    boundary.filter(|text| (1..=70).contains(&text.len()) && text.iter().all(allowed) && !text.ends_with(b" "))
}

/// The parts of a body, as ranges of it. Every occurrence of the delimiter must be a real one, so that a parser which accepts bare line feeds or
/// prefixes as delimiters finds the same parts.
struct Parts<'a> {
    body: &'a [u8],
    delimiter: Vec<u8>,
    at: usize,
    over: bool,
}

impl<'a> Parts<'a> {
    fn new(body: &'a [u8], boundary: &[u8]) -> Result<Self, FormError> {
        let delimiter = [b"--", boundary].concat();
        let rest = body.strip_prefix(&delimiter[..]).ok_or(FormError::Framing)?;
        if !rest.starts_with(b"\r\n") {
            return Err(FormError::Framing);
        }
        let at = delimiter.len() + 2;
        Ok(Self { body, delimiter, at, over: false })
    }

    /// The next part, head included. `None` = the form's end was reached and is correct.
    fn next(&mut self) -> Result<Option<(usize, usize)>, FormError> {
        if self.over {
            return Ok(None);
        }
        let start = self.at;
        let end = start + memmem::find(&self.body[start..], &self.delimiter).ok_or(FormError::Framing)?;
        let after = end + self.delimiter.len();
        if end < start + 2 || &self.body[end - 2..end] != b"\r\n" {
            return Err(FormError::Framing);
        }
        match self.body.get(after..) {
            Some([b'\r', b'\n', ..]) => self.at = after + 2,
            Some(b"--" | b"--\r\n") => self.over = true,
            _ => return Err(FormError::Framing),
        }
        Ok(Some((start, end - 2)))
    }
}

#[derive(Default)]
struct FormHeadBuilder {
    seen: u8,
    model: Option<(usize, usize)>,
    stream: bool,
    choices: u64,
}

impl FormHeadBuilder {
    fn part(&mut self, body: &[u8], start: usize, end: usize) -> Result<(), FormError> {
        let part = &body[start..end];
        let head = memmem::find(&part[..part.len().min(PART_HEAD_MAX)], b"\r\n\r\n").ok_or(FormError::PartHead)?;
        let disposition = Disposition::read(&part[..head]).ok_or(FormError::PartHead)?;
        let Some(known) = FIELDS.iter().position(|field| field.as_bytes() == disposition.name) else {
            return Ok(());
        };
        if self.seen & (1 << known) != 0 {
            return Err(FormError::Duplicate(FIELDS[known]));
        }
        self.seen |= 1 << known;
        if disposition.has_file || !disposition.is_plain_text {
            return Err(FormError::Value(FIELDS[known], "a plain field"));
        }
        let value = (start + head + 4, end);
        match FIELDS[known] {
            "model" => self.model = Some(value),
            "stream" => self.stream = boolean(&body[value.0..value.1])?,
            "n" => self.choices = number(&body[value.0..value.1])?,
            _ => {}
        }
        Ok(())
    }
}

fn number(value: &[u8]) -> Result<u64, FormError> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or(FormError::Value("n", "a whole number"))
}

fn boolean(value: &[u8]) -> Result<bool, FormError> {
    match value {
        b"true" | b"True" | b"1" => Ok(true),
        b"false" | b"False" | b"0" | b"" => Ok(false),
        _ => Err(FormError::Value("stream", "true or false")),
    }
}

/// UTF-8 without control characters and without white space around it.
fn plain_text(value: &[u8], bytes_max: usize) -> Option<&str> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= bytes_max)?;
    let plain = text.trim() == text && !text.chars().any(char::is_control);
    plain.then_some(text)
}
