//! A cursor over JSON text (RFC 8259) that checks all it reads and builds nothing.

use memchr::memchr2;

/// The deepest nesting accepted, including the outermost object. Fits the bit stack below.
pub const DEPTH_MAX: u32 = 64;

/// From here to there in a text, the end exclusive.
pub type Span = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not JSON.
    Syntax,
    Depth,
}

pub struct Cursor<'a> {
    pub text: &'a [u8],
    pub at: usize,
}

/// Position of a string's content, without the quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    pub start: usize,
    pub end: usize,
    pub escaped: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is not white space, without reading it.
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    pub fn take(&mut self, expected: u8) -> Result<(), Fault> {
        if self.peek() != Some(expected) {
            return Err(Fault::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    pub fn string(&mut self) -> Result<Text, Fault> {
        self.quoted::<false>()
    }

    /// As [`Self::string`], for text that was checked before: only the end is searched for.
    pub fn proven_string(&mut self) -> Result<Text, Fault> {
        self.quoted::<true>()
    }

    fn quoted<const PROVEN: bool>(&mut self) -> Result<Text, Fault> {
        self.take(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.text.get(self.at..).ok_or(Fault::Syntax)?;
            let stop = memchr2(b'"', b'\\', rest).ok_or(Fault::Syntax)?;
            // A fold instead of a search has no branch for each byte, so sixteen or more are checked at once.
            if !PROVEN && rest[..stop].iter().fold(false, |bad, byte| bad | (*byte < 0x20)) {
                return Err(Fault::Syntax);
            }
            self.at += stop + 1;
            if rest[stop] == b'"' {
                return Ok(Text { start, end: self.at - 1, escaped });
            }
            escaped = true;
            if PROVEN {
                self.at += 1;
            } else {
                self.escape()?;
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let length = match self.text.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
            Some(b'u') => 5,
            _ => return Err(Fault::Syntax),
        };
        let escape = self.text.get(self.at..self.at + length).ok_or(Fault::Syntax)?;
        if !escape[1..].iter().all(u8::is_ascii_hexdigit) {
            return Err(Fault::Syntax);
        }
        self.at += length;
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Fault> {
        let matches = self.text.get(self.at..self.at + word.len()) == Some(word);
        self.at += word.len();
        matches.then_some(()).ok_or(Fault::Syntax)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        (self.at > start).then_some(()).ok_or(Fault::Syntax)
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        match self.text.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => Err(Fault::Syntax),
        }
    }

    /// Reads one value inside `depth` open containers. No recursion: each level of nesting costs a bit, not stack.
    pub fn value(&mut self, depth: u32) -> Result<(), Fault> {
        let mut open = depth;
        let mut objects: u64 = 0; // the innermost container in the lowest bit: 1 = object
        loop {
            let Some(bracket @ (b'{' | b'[')) = self.peek() else {
                self.scalar()?;
                if self.close(depth, &mut open, &mut objects)? {
                    return Ok(());
                }
                continue;
            };
            self.at += 1;
            open += 1;
            objects = objects << 1 | u64::from(bracket == b'{');
            if open > DEPTH_MAX {
                return Err(Fault::Depth);
            }
            let empty = self.peek() == Some(if bracket == b'{' { b'}' } else { b']' });
            if !empty {
                self.member(objects)?;
            } else if self.close(depth, &mut open, &mut objects)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here. True when the outermost value is complete, false when another value follows.
    fn close(&mut self, depth: u32, open: &mut u32, objects: &mut u64) -> Result<bool, Fault> {
        while *open > depth {
            let object = *objects & 1 == 1;
            match (self.peek(), object) {
                (Some(b','), _) => {
                    self.at += 1;
                    self.member(*objects)?;
                    return Ok(false);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    *open -= 1;
                    *objects >>= 1;
                }
                _ => return Err(Fault::Syntax),
            }
        }
        Ok(true)
    }

    /// In an object, a value has a key before it.
    fn member(&mut self, objects: u64) -> Result<(), Fault> {
        if objects & 1 == 1 {
            self.string()?;
            self.take(b':')?;
        }
        Ok(())
    }
}
