//! What the log holds, as bytes. Fixed numbers first, little endian, then texts with a length of one byte (longer ones are cut: they are names).
//!
//! open   = id (16) · trace id (16) · started µs (8) · operation · streamed · attempt · texts: tenant, project, principal, key, session,
//!          endpoint, model, upstream model
//! settle = id (16) · 5 token counts (8 each) · first token µs (8) · duration µs (8) · http status (2) · outcome · source

use crate::record_id::RecordId;
use tenon_contract::{Operation, Outcome, UsageRecord, UsageSource};

pub(crate) const OPEN_HEAD: usize = 43;
pub(crate) const SETTLE_BYTES: usize = 76;
pub(crate) const OPEN_MAX: usize = OPEN_HEAD + 8 * 256;

/// Who calls what: written before the upstream is called.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    pub id: RecordId,
    /// Zero = none.
    pub trace_id: [u8; 16],
    pub started_unix_us: i64,
    pub operation: Operation,
    pub streamed: bool,
    pub attempt: u8,
    /// tenant, project, principal, key, session
    pub parties: &'a [Box<str>; 5],
    pub endpoint_id: &'a str,
    pub model: &'a str,
    pub upstream_model: &'a str,
}

/// How it ended: written before the end of the answer is given away.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    pub outcome: Outcome,
    pub source: UsageSource,
    pub http_status: u16,
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub reasoning: u64,
    pub first_token_us: u64,
    pub duration_us: u64,
}

struct Writer<'a> {
    to: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.to[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn text(&mut self, text: &str) {
        let text = &text.as_bytes()[..text.floor_char_boundary(255)];
        self.put(&[u8::try_from(text.len()).unwrap_or(u8::MAX)]);
        self.put(text);
    }
}

impl Opened<'_> {
    /// Writes itself and says how long it is. `to` holds [`OPEN_MAX`] bytes.
    pub(crate) fn encode(&self, to: &mut [u8]) -> usize {
        let mut writer = Writer { to, at: 0 };
        writer.put(&self.id.0);
        writer.put(&self.trace_id);
        writer.put(&self.started_unix_us.to_le_bytes());
        writer.put(&[self.operation as u8, u8::from(self.streamed), self.attempt]);
        self.parties.iter().for_each(|text| writer.text(text));
        [self.endpoint_id, self.model, self.upstream_model].into_iter().for_each(|text| writer.text(text));
        writer.at
    }
}

impl Settled {
    pub(crate) fn encode(&self, id: RecordId) -> [u8; SETTLE_BYTES] {
        let mut bytes = [0; SETTLE_BYTES];
        let mut writer = Writer { to: &mut bytes, at: 0 };
        writer.put(&id.0);
        let numbers = [self.input, self.output, self.cache_read, self.cache_write, self.reasoning, self.first_token_us, self.duration_us];
        numbers.iter().for_each(|number| writer.put(&number.to_le_bytes()));
        writer.put(&self.http_status.to_le_bytes());
        writer.put(&[self.outcome as u8, self.source as u8]);
        bytes
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let [length] = self.array()?;
        String::from_utf8(self.take(usize::from(length))?.to_vec()).ok()
    }
}

pub(crate) fn id_of(payload: &[u8]) -> Option<RecordId> {
    Reader(payload).array().map(RecordId)
}

/// The record to ship: what the open says, plus how it ended, or that nobody knows (`settle` = `None`).
pub(crate) fn to_wire(open: &[u8], settle: Option<&[u8]>, gateway_id: &str) -> Option<UsageRecord> {
    let mut record = read_open(open)?;
    record.gateway_id = gateway_id.to_owned();
    match settle {
        Some(settle) => read_settle(settle, &mut record)?,
        None => {
            record.set_outcome(Outcome::Unknown);
            record.set_usage_source(UsageSource::None);
        }
    }
    Some(record)
}

fn read_open(open: &[u8]) -> Option<UsageRecord> {
    let mut reader = Reader(open);
    let id = RecordId(reader.array()?);
    let trace: [u8; 16] = reader.array()?;
    let started_at_unix_us = i64::from_le_bytes(reader.array()?);
    let [operation, streamed, attempt] = reader.array()?;
    Some(UsageRecord {
        record_id: id.0.to_vec(),
        request_id: id.text().to_string(),
        trace_id: if trace == [0; 16] { String::new() } else { trace.iter().map(|byte| format!("{byte:02x}")).collect() },
        started_at_unix_us,
        operation: i32::from(operation),
        streamed: streamed != 0,
        attempt: u32::from(attempt),
        tenant_id: reader.text()?,
        project_id: reader.text()?,
        principal_id: reader.text()?,
        key_id: reader.text()?,
        session_id: reader.text()?,
        endpoint_id: reader.text()?,
        model: reader.text()?,
        upstream_model: reader.text()?,
        ..UsageRecord::default()
    })
}

fn read_settle(settle: &[u8], record: &mut UsageRecord) -> Option<()> {
    let mut reader = Reader(settle.get(16..)?);
    record.input_tokens = reader.number()?;
    record.output_tokens = reader.number()?;
    record.cache_read_tokens = reader.number()?;
    record.cache_write_tokens = reader.number()?;
    record.reasoning_tokens = reader.number()?;
    record.first_token_us = reader.number()?;
    record.duration_us = reader.number()?;
    record.http_status = u32::from(u16::from_le_bytes(reader.array()?));
    let [outcome, source] = reader.array()?;
    record.outcome = i32::from(outcome);
    record.usage_source = i32::from(source);
    Some(())
}
