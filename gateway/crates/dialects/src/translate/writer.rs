//! Writes JSON text. Commas are added automatically, from the last byte written.

#[derive(Default)]
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Before a value in a list or a key in an object.
    fn due(&mut self) {
        if !matches!(self.0.last(), None | Some(b'{' | b'[' | b':' | b' ')) {
            self.0.push(b',');
        }
    }

    pub fn open(&mut self, bracket: u8) -> &mut Self {
        self.due();
        self.0.push(bracket);
        self
    }

    pub fn close(&mut self, bracket: u8) -> &mut Self {
        self.0.push(bracket);
        self
    }

    pub fn key(&mut self, name: &str) -> &mut Self {
        self.due();
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        self
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, json: &str) -> &mut Self {
        self.due();
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    /// A string that is not.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.due();
        // Writing into memory does not fail.
        let _ = serde_json::to_writer(&mut self.0, text);
        self
    }

    pub fn number(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_string())
    }

    pub fn member(&mut self, name: &str, json: &str) -> &mut Self {
        self.key(name).raw(json)
    }
}
