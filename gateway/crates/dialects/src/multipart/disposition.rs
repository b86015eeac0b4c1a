//! The headers of one part: which field it is.

/// Which field a part is. Only headers that appear once and can be read in one way.
#[derive(Debug, PartialEq, Eq)]
pub struct Disposition<'a> {
    pub name: &'a [u8],
    pub has_file: bool,
    /// No content type, or text in UTF-8.
    pub is_plain_text: bool,
}

impl<'a> Disposition<'a> {
    /// Reads the headers of a part; `None` when parsers could read them differently.
    pub fn read(head: &'a [u8]) -> Option<Self> {
        let (mut disposition, mut content_type) = (None, None);
        for line in lines(head)? {
            let colon = memchr::memchr(b':', line)?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.is_empty() || !name.iter().all(is_token) {
                return None;
            }
            if name.eq_ignore_ascii_case(b"content-disposition") {
                disposition = once(disposition, value)?;
            } else if name.eq_ignore_ascii_case(b"content-type") {
                content_type = once(content_type, value)?;
            } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") && !is_identity(value) {
                return None;
            }
        }
        let (name, has_file) = form_data(disposition?)?;
        let is_plain_text = match content_type {
            None => true,
            Some(content_type) => is_plain_text(content_type)?,
        };
        Some(Self { name, has_file, is_plain_text })
    }
}

/// Lines that end in CRLF and hold neither CR nor LF. A line that begins with white space would continue the previous one.
fn lines(head: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines = Vec::with_capacity(4);
    let mut rest = head;
    loop {
        let end = memchr::memmem::find(rest, b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        let clean = line.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f));
        if !clean || line.first().is_none_or(u8::is_ascii_whitespace) {
            return None;
        }
        lines.push(line);
        match end {
            None => return Some(lines),
            Some(end) => rest = &rest[end + 2..],
        }
    }
}

/// Sets a value that may appear once.
#[allow(clippy::option_option)] // the outer one is the refusal of a second
fn once<'a>(held: Option<&'a [u8]>, value: &'a [u8]) -> Option<Option<&'a [u8]>> {
    held.is_none().then_some(Some(value))
}

/// RFC 7578 §4.7 forbids encodings that change the bytes; a parser that obeys one would read another value.
fn is_identity(encoding: &[u8]) -> bool {
    [&b"7bit"[..], b"8bit", b"binary"].iter().any(|known| encoding.eq_ignore_ascii_case(known))
}

/// `form-data` with its name. `_charset_` (RFC 7578 §4.6) would change how the other fields are read.
fn form_data(value: &[u8]) -> Option<(&[u8], bool)> {
    let (disposition_type, parameters) = Parameters::after_word(value)?;
    if !disposition_type.eq_ignore_ascii_case(b"form-data") {
        return None;
    }
    let (mut name, mut file, mut extended_file) = (None, None, None);
    for parameter in parameters {
        let (key, value) = parameter?;
        match key {
            _ if key.eq_ignore_ascii_case(b"name") => name = once(name, value)?,
            _ if key.eq_ignore_ascii_case(b"filename") => file = once(file, value)?,
            _ if key.eq_ignore_ascii_case(b"filename*") => extended_file = once(extended_file, value)?,
            _ => return None,
        }
    }
    // Some parsers decode percent signs and encoded words in names, others do not.
    let plain = |name: &&[u8]| !name.is_empty() && !name.contains(&b'%') && memchr::memmem::find(name, b"=?").is_none() && *name != b"_charset_";
    name.filter(plain).map(|name| (name, file.is_some() || extended_file.is_some()))
}

fn is_plain_text(content_type: &[u8]) -> Option<bool> {
    let (media_type, parameters) = Parameters::after_word(content_type)?;
    let mut plain = media_type.eq_ignore_ascii_case(b"text/plain");
    for parameter in parameters {
        let (name, value) = parameter?;
        let utf8 = [&b"utf-8"[..], b"utf8", b"us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known));
        plain &= !name.eq_ignore_ascii_case(b"charset") || utf8;
    }
    Some(plain)
}

/// `; name=value` pairs, where a value is a token or a quoted string without escapes. An item is `None` where it is neither.
pub struct Parameters<'a>(&'a [u8]);

impl<'a> Parameters<'a> {
    /// The word before the first parameter, and the parameters.
    pub fn after_word(text: &'a [u8]) -> Option<(&'a [u8], Self)> {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        let word = text[..end].trim_ascii();
        let fits = !word.is_empty() && word.iter().all(|byte| is_token(byte) || *byte == b'/');
        fits.then_some((word, Self(&text[end..])))
    }

    fn pair(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let rest = self.0.strip_prefix(b";")?.trim_ascii_start();
        let equals = rest.iter().position(|byte| !is_token(byte)).filter(|at| *at > 0 && rest[*at] == b'=')?;
        let (name, value) = (&rest[..equals], &rest[equals + 1..]);
        let Some(quoted) = value.strip_prefix(b"\"") else {
            let end = value.iter().position(|byte| !is_token(byte) && !b"/:?=@()<>,[]".contains(byte)).unwrap_or(value.len());
            self.0 = value[end..].trim_ascii_start();
            return (end > 0).then_some((name, &value[..end]));
        };
        let end = memchr::memchr2(b'"', b'\\', quoted).filter(|at| quoted[*at] == b'"')?;
        self.0 = quoted[end + 1..].trim_ascii_start();
        Some((name, &quoted[..end]))
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let pair = self.pair();
        if pair.is_none() {
            self.0 = &[];
        }
        Some(pair)
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}
