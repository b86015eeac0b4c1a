//! Messages of the Open Inference Protocol v2, read only for the model in a request and the token counts in an answer.
//!
//! A field that comes twice is refused, because parsers take the last one. So is what only some parsers accept: tags in more bytes than needed,
//! groups, and numbers that overflow.

use bytes::Bytes;
use tenon_dialects::Usage;

const MODEL_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Malformed,
    ModelTwice,
    ModelMissing,
    BadModel,
}

/// Where a request names its model.
#[derive(Debug, PartialEq, Eq)]
pub struct ModelName<'a> {
    pub name: &'a str,
    /// Its field, tag and length included.
    at: (usize, usize),
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

struct Fields<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0_u64;
        for index in 0..10 {
            let byte = *self.text.get(self.at).ok_or(Fault::Malformed)?;
            self.at += 1;
            // Ten bytes hold seventy bits: the tenth may hold one of them.
            if index == 9 && byte > 1 {
                return Err(Fault::Malformed);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // A last byte without bits is one too many, unless it is the only one.
                return if byte == 0 && index > 0 { Err(Fault::Malformed) } else { Ok(value) };
            }
        }
        Err(Fault::Malformed)
    }

    fn skip(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(length).ok_or(Fault::Malformed)?;
        let taken = self.text.get(self.at..end).ok_or(Fault::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    /// The next field: its number, its value, and where it began.
    fn next(&mut self) -> Result<Option<(u32, Value<'a>, usize)>, Fault> {
        if self.at == self.text.len() {
            return Ok(None);
        }
        let start = self.at;
        let tag = u32::try_from(self.varint()?).map_err(|_| Fault::Malformed)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.skip(8).map(|_| Value::Other)?,
            2 => {
                let length = self.varint()?;
                let length = i32::try_from(length).map_err(|_| Fault::Malformed)?;
                Value::Bytes(self.skip(usize::try_from(length).unwrap_or(0))?)
            }
            5 => self.skip(4).map(|_| Value::Other)?,
            _ => return Err(Fault::Malformed),
        };
        if tag >> 3 == 0 { Err(Fault::Malformed) } else { Ok(Some((tag >> 3, value, start))) }
    }
}

/// Field 1 of a request: `model_name`, or `name` where a model is asked about.
///
/// # Errors
/// When another parser could read another name.
pub fn model_name(message: &[u8]) -> Result<ModelName<'_>, Fault> {
    let mut fields = Fields { text: message, at: 0 };
    let mut model = None;
    while let Some((number, value, start)) = fields.next()? {
        if number != 1 {
            continue;
        }
        let Value::Bytes(name) = value else {
            return Err(Fault::Malformed);
        };
        if model.replace((name, (start, fields.at))).is_some() {
            return Err(Fault::ModelTwice);
        }
    }
    let (name, at) = model.ok_or(Fault::ModelMissing)?;
    let name = std::str::from_utf8(name).map_err(|_| Fault::BadModel)?;
    let plain = name.len() <= MODEL_BYTES_MAX && !name.chars().any(char::is_control);
    match name {
        "" => Err(Fault::ModelMissing),
        _ if plain => Ok(ModelName { name, at }),
        _ => Err(Fault::BadModel),
    }
}

/// The message as the endpoint gets it, in pieces, with its five bytes of length before it (gRPC over HTTP/2, "Length-Prefixed-Message").
#[must_use]
pub fn framed(message: &Bytes, upstream_model: Option<&str>) -> Vec<Bytes> {
    let (before, field, after) = match (upstream_model, model_name(message)) {
        (Some(model), Ok(named)) => {
            let mut field = Vec::with_capacity(model.len() + 4);
            put_bytes(1, model.as_bytes(), &mut field);
            (message.slice(..named.at.0), Bytes::from(field), message.slice(named.at.1..))
        }
        _ => (message.clone(), Bytes::new(), Bytes::new()),
    };
    let length = u32::try_from(before.len() + field.len() + after.len()).unwrap_or(u32::MAX);
    let prefix = [&[0][..], &length.to_be_bytes()].concat();
    [prefix.into(), before, field, after].into_iter().filter(|piece| !piece.is_empty()).collect()
}

pub fn put_bytes(number: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or(0));
    out.extend_from_slice(value);
}

/// Names under which engines report counts, in parameters or as tensors: TensorRT-LLM's and vLLM's Triton backends, and OpenAI's names.
const INPUT: [&[u8]; 3] = [b"num_input_tokens", b"input_tokens", b"prompt_tokens"];
const OUTPUT: [&[u8]; 3] = [b"num_output_tokens", b"output_tokens", b"completion_tokens"];

#[derive(Default)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    /// Tensors whose contents are in `raw_output_contents`, in order.
    tensors: Vec<TokenKind>,
    raw: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Input,
    Output,
    Other,
}

impl TokenKind {
    fn of(name: &[u8]) -> Self {
        if INPUT.contains(&name) {
            Self::Input
        } else if OUTPUT.contains(&name) {
            Self::Output
        } else {
            Self::Other
        }
    }
}

impl Counts {
    fn note(&mut self, kind: TokenKind, value: Option<u64>) {
        match kind {
            TokenKind::Input => self.input = value.or(self.input),
            TokenKind::Output => self.output = value.or(self.output),
            TokenKind::Other => {}
        }
    }
}

/// Token counts in a `ModelInferResponse`, or in the one inside a `ModelStreamInferResponse`. `None` where it has none.
#[must_use]
pub fn usage(message: &[u8], streamed: bool) -> Option<Usage> {
    let response = if streamed { field(message, 2)? } else { message };
    let mut counts = Counts::default();
    let mut fields = Fields { text: response, at: 0 };
    while let Ok(Some((number, Value::Bytes(value), _))) = fields.next() {
        match number {
            4 => counts.note(TokenKind::of(field(value, 1).unwrap_or_default()), field(value, 2).and_then(parameter)),
            5 => {
                let kind = TokenKind::of(field(value, 1).unwrap_or_default());
                counts.tensors.push(kind);
                counts.note(kind, field(value, 5).and_then(first_number));
            }
            6 => {
                let kind = counts.tensors.get(counts.raw).copied().unwrap_or(TokenKind::Other);
                counts.raw += 1;
                counts.note(kind, little_endian(value));
            }
            _ => {}
        }
    }
    if counts.input.is_none() && counts.output.is_none() {
        return None;
    }
    Some(Usage { input: counts.input.unwrap_or(0), output: counts.output.unwrap_or(0), ..Usage::default() })
}

/// A stream reports an error in a message of its own.
#[must_use]
pub fn is_error(message: &[u8]) -> bool {
    field(message, 1).is_some_and(|text| !text.is_empty())
}

/// The last field of this number that holds bytes.
pub fn field(message: &[u8], number: u32) -> Option<&[u8]> {
    let mut fields = Fields { text: message, at: 0 };
    let mut last = None;
    while let Ok(Some((at, value, _))) = fields.next() {
        match value {
            Value::Bytes(value) if at == number => last = Some(value),
            _ => {}
        }
    }
    last
}

/// `InferParameter`: `int64_param` or `uint64_param`.
fn parameter(value: &[u8]) -> Option<u64> {
    match (Fields { text: value, at: 0 }).next() {
        Ok(Some((2 | 5, Value::Number(number), _))) => plausible(number),
        _ => None,
    }
}

/// `InferTensorContents`: the first of its integers, packed or not.
fn first_number(contents: &[u8]) -> Option<u64> {
    match (Fields { text: contents, at: 0 }).next() {
        Ok(Some((2..=5, Value::Number(number), _))) => plausible(number),
        Ok(Some((2..=5, Value::Bytes(packed), _))) => Fields { text: packed, at: 0 }.varint().ok().and_then(plausible),
        _ => None,
    }
}

/// Four or eight bytes of one integer.
fn little_endian(raw: &[u8]) -> Option<u64> {
    match raw.len() {
        4 => Some(u64::from(u32::from_le_bytes(raw.try_into().ok()?))).and_then(plausible),
        8 => plausible(u64::from_le_bytes(raw.try_into().ok()?)),
        _ => None,
    }
}

/// A negative count comes as a very large one.
fn plausible(number: u64) -> Option<u64> {
    (number <= u64::from(u32::MAX >> 1)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        fields.iter().for_each(|(number, value)| put_bytes(*number, value, &mut out));
        out
    }

    #[test]
    fn the_model_is_found_wherever_it_stands_and_renamed() {
        let long = vec![7; 300];
        let body = Bytes::from(message(&[(3, b"id"), (7, &long), (1, b"m"), (5, b"x")]));
        assert_eq!(model_name(&body).unwrap().name, "m");
        let renamed = framed(&body, Some("another")).concat();
        let expected = message(&[(3, b"id"), (7, &long), (1, b"another"), (5, b"x")]);
        assert_eq!(renamed, [&[0][..], &u32::try_from(expected.len()).unwrap().to_be_bytes(), &expected].concat());
        assert_eq!(framed(&body, None).concat()[5..], body[..]);
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        assert_eq!(model_name(&message(&[(1, b"a"), (1, b"b")])), Err(Fault::ModelTwice));
        assert_eq!(model_name(&message(&[(2, b"a")])), Err(Fault::ModelMissing));
        assert_eq!(model_name(&message(&[(1, b"")])), Err(Fault::ModelMissing));
        assert_eq!(model_name(&message(&[(1, b"\xff")])), Err(Fault::BadModel));
        assert_eq!(model_name(&message(&[(1, b"a\n")])), Err(Fault::BadModel));
        let good = message(&[(1, b"a")]);
        let malformed: [&[u8]; 9] = [
            &[0x8a, 0x00, 1, b'b'],                   // field 1 by a tag of two bytes
            &[0x0a, 0x81, 0x00, b'b'],                // a length of two bytes
            &[0x8a, 0x80, 0x80, 0x80, 0x10, 1, b'b'], // a tag whose lower 32 bits are those of field 1
            &[0x0b, 0x0c],                            // a group
            &[0x08, 1],                               // field 1 as a number
            &[0x0a, 5, b'b'],                         // cut off
            &[0x02, 1, b'b'],                         // field 0
            &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f],
        ];
        for tail in malformed {
            assert_eq!(model_name(&[&good, tail].concat()), Err(Fault::Malformed), "{tail:?}");
        }
    }

    #[test]
    fn counts_are_found_where_engines_put_them() {
        let parameter = |name: &[u8], value: u8| message(&[(1, name), (2, &[0x10, value])]);
        let by_parameters = message(&[(1, b"m"), (4, &parameter(b"prompt_tokens", 11)), (4, &parameter(b"completion_tokens", 7))]);
        let expected_usage = Some(Usage { input: 11, output: 7, ..Usage::default() });
        assert_eq!(usage(&by_parameters, false), expected_usage);
        assert_eq!(usage(&message(&[(2, &by_parameters)]), true), expected_usage);
        let tensor = |name: &[u8], contents: &[u8]| if contents.is_empty() { message(&[(1, name)]) } else { message(&[(1, name), (5, contents)]) };
        let packed = |value: u8| vec![0x22, 1, value];
        let by_contents = message(&[(5, &tensor(b"num_input_tokens", &packed(11))), (5, &tensor(b"num_output_tokens", &[0x10, 7]))]);
        assert_eq!(usage(&by_contents, false), expected_usage);
        let raw: [(u8, &[u8]); 6] = [
            (5, &tensor(b"text_output", b"")),
            (5, &tensor(b"num_input_tokens", b"")),
            (5, &tensor(b"num_output_tokens", b"")),
            (6, b"\x02\0\0\0yo"),
            (6, &11_u32.to_le_bytes()),
            (6, &7_u64.to_le_bytes()),
        ];
        assert_eq!(usage(&message(&raw), false), expected_usage);
        assert_eq!(
            usage(
                &message(&[
                    (1, b"m"),
                    (4, &message(&[(1, b"prompt_tokens"), (2, &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1])]))
                ]),
                false
            ),
            None
        );
        assert_eq!(usage(b"\xff\xff", false), None);
        assert!(is_error(&message(&[(1, b"no")])) && !is_error(&message(&[(2, b"")])));
    }
}
