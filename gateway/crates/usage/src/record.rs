//! The records of the log, as bytes. Fixed numbers come first, little endian, then texts with a length of one byte.
//! Longer texts are cut, because all of them are names.
//!
//! ```text
//! open    id (16) · trace id (16) · started µs (8) · operation · streamed · attempt
//!         texts: tenant, project, principal, key, session, endpoint, model, upstream model
//!         if hard budgets apply: price id (text) · number of leases · for each: lease id (text), what was reserved (8)
//! settle  id (16) · 5 token counts (8 each) · first token µs (8) · duration µs (8) · HTTP status (2) · outcome · source
//!         audio tokens (8) · images (4) · for each lease of the open record: what it was charged (8)
//! ```
//!
//! New fields are added at the end, so that a log which an earlier version left can be read.

use crate::record_id::RecordId;
use tenon_contract::{Operation, Outcome, UsageSource};

pub(crate) const OPEN_HEAD: usize = 43;
pub(crate) const SETTLE_BYTES: usize = 88;
/// Of one call. `limits` reserves no more.
pub(crate) const USES_MAX: usize = 16;
pub(crate) const LEASE_ID_MAX: usize = 64;
pub(crate) const OPEN_MAX: usize = OPEN_HEAD + 9 * 256 + 1 + USES_MAX * (1 + LEASE_ID_MAX + 8);
pub(crate) const SETTLE_MAX: usize = settle_bytes(USES_MAX);

pub(crate) const fn settle_bytes(uses: usize) -> usize {
    SETTLE_BYTES + 8 * uses
}

/// Who calls what. Written before the upstream is called.
#[derive(Clone, Copy, Debug)]
pub struct OpenRecord<'a> {
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
    /// The price version by which `uses` were computed.
    pub price_id: &'a str,
    /// What was reserved of leases on hard budgets. Those after the 16th are not kept.
    pub uses: &'a [LeaseUse<'a>],
}

/// A part of a lease on a hard budget.
#[derive(Clone, Copy, Debug)]
pub struct LeaseUse<'a> {
    pub lease_id: &'a str,
    pub nano: i64,
}

/// How the call ended. Written before the end of the response is sent.
#[derive(Clone, Copy, Debug)]
pub struct SettleRecord {
    pub outcome: Outcome,
    pub source: UsageSource,
    pub http_status: u16,
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub reasoning: u64,
    /// A part of input and output.
    pub audio: u64,
    /// Generated images.
    pub images: u32,
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
        self.text_within(text, 255);
    }

    fn text_within(&mut self, text: &str, bytes_max: usize) {
        let text = &text.as_bytes()[..text.floor_char_boundary(bytes_max)];
        self.put(&[u8::try_from(text.len()).unwrap_or(u8::MAX)]);
        self.put(text);
    }
}

impl OpenRecord<'_> {
    /// Writes itself into `to`, which holds [`OPEN_MAX`] bytes, and returns its length.
    pub(crate) fn encode(&self, to: &mut [u8]) -> usize {
        let mut writer = Writer { to, at: 0 };
        writer.put(&self.id.0);
        writer.put(&self.trace_id);
        writer.put(&self.started_unix_us.to_le_bytes());
        writer.put(&[self.operation as u8, u8::from(self.streamed), self.attempt]);
        self.parties.iter().for_each(|text| writer.text(text));
        [self.endpoint_id, self.model, self.upstream_model].into_iter().for_each(|text| writer.text(text));
        if !self.uses.is_empty() {
            let uses = &self.uses[..self.uses.len().min(USES_MAX)];
            writer.text(self.price_id);
            writer.put(&[u8::try_from(uses.len()).unwrap_or(0)]);
            for used in uses {
                writer.text_within(used.lease_id, LEASE_ID_MAX);
                writer.put(&used.nano.to_le_bytes());
            }
        }
        writer.at
    }
}

impl SettleRecord {
    /// Returns the bytes and their number. The leases of the open record are charged `charges`; a missing charge counts
    /// as zero.
    pub(crate) fn encode(&self, id: RecordId, uses: usize, charges: &[i64]) -> ([u8; SETTLE_MAX], usize) {
        let mut bytes = [0; SETTLE_MAX];
        let mut writer = Writer { to: &mut bytes, at: 0 };
        writer.put(&id.0);
        let numbers = [self.input, self.output, self.cache_read, self.cache_write, self.reasoning, self.first_token_us, self.duration_us];
        numbers.iter().for_each(|number| writer.put(&number.to_le_bytes()));
        writer.put(&self.http_status.to_le_bytes());
        writer.put(&[self.outcome as u8, self.source as u8]);
        writer.put(&self.audio.to_le_bytes());
        writer.put(&self.images.to_le_bytes());
        (0..uses).for_each(|index| writer.put(&charges.get(index).copied().unwrap_or(0).to_le_bytes()));
        let length = writer.at;
        (bytes, length)
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

    fn text(&mut self) -> Option<&'a [u8]> {
        let [length] = self.array()?;
        self.take(usize::from(length))
    }
}

pub(crate) fn id_of(payload: &[u8]) -> Option<RecordId> {
    Reader(payload).array().map(RecordId)
}

/// Appends the `UsageRecord` message: the open record plus how the call ended, or that this is unknown (`settle` =
/// `None`).
///
/// Copies straight from the log's bytes to the wire's: with the generated type and its twelve strings it took three
/// times as long.
pub(crate) fn append_wire(open: &[u8], settle: Option<&[u8]>, gateway_id: &str, process_id: RecordId, out: &mut Vec<u8>) -> Option<()> {
    let mut reader = Reader(open);
    let id = RecordId(reader.array()?);
    let trace: [u8; 16] = reader.array()?;
    let started = u64::from_le_bytes(reader.array()?);
    let [operation, streamed, attempt] = reader.array()?;
    wire::bytes(1, &id.0, out);
    wire::bytes(2, id.text().as_bytes(), out);
    if trace != [0; 16] {
        wire::bytes(3, RecordId(trace).text().replace('-', "").as_bytes(), out);
    }
    wire::bytes(4, gateway_id.as_bytes(), out);
    // tenant, project, principal, key, session, endpoint, model, upstream model
    for tag in 5..=12 {
        wire::bytes(tag, reader.text()?, out);
    }
    wire::number(13, u64::from(operation), out);
    wire::number(14, u64::from(streamed), out);
    wire::number(23, started, out);
    wire::number(26, u64::from(attempt), out);
    if process_id.0 != [0; 16] {
        wire::bytes(31, process_id.text().as_bytes(), out);
    }
    match settle {
        Some(settle) => append_settle(settle, reader, out),
        None => {
            let reserved = append_uses(reader, None, out)?;
            wire::number(15, Outcome::Unknown as u64, out);
            wire::number(17, if reserved { UsageSource::Reserved } else { UsageSource::None } as u64, out);
            Some(())
        }
    }
}

fn append_settle(settle: &[u8], uses: Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut reader = Reader(settle.get(16..)?);
    // input, output, cache read, cache write, reasoning, first token, duration
    for tag in [18, 19, 20, 21, 22, 24, 25] {
        wire::number(tag, u64::from_le_bytes(reader.array()?), out);
    }
    wire::number(16, u64::from(u16::from_le_bytes(reader.array()?)), out);
    let [outcome, source] = reader.array()?;
    wire::number(15, u64::from(outcome), out);
    wire::number(17, u64::from(source), out);
    // A record of an earlier version ends here.
    if let Some(audio) = reader.array() {
        wire::number(29, u64::from_le_bytes(audio), out);
        wire::number(30, u64::from(u32::from_le_bytes(reader.array()?)), out);
    }
    append_uses(uses, Some(reader), out)?;
    Some(())
}

/// Appends what leases were charged or, without `charges`, what was reserved of them. Returns whether there are any.
fn append_uses(mut uses: Reader<'_>, mut charges: Option<Reader<'_>>, out: &mut Vec<u8>) -> Option<bool> {
    // A call without hard budgets ends here.
    let Some(price_id) = uses.text() else {
        return Some(false);
    };
    wire::bytes(28, price_id, out);
    let [count] = uses.array()?;
    let mut message = Vec::with_capacity(64);
    for _ in 0..count {
        let (lease_id, reserved) = (uses.text()?, uses.array()?);
        let nano = match &mut charges {
            Some(charges) => charges.array()?,
            None => reserved,
        };
        message.clear();
        wire::bytes(1, lease_id, &mut message);
        wire::number(2, i64::from_le_bytes(nano).cast_unsigned(), &mut message);
        wire::bytes(27, &message, out);
    }
    Some(count > 0)
}

/// The part of protobuf's encoding that is needed (protobuf.dev/programming-guides/encoding). Zero and empty are left
/// out, as in proto3.
pub(crate) mod wire {
    pub fn varint(mut value: u64, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    pub fn number(tag: u64, value: u64, out: &mut Vec<u8>) {
        if value != 0 {
            varint(tag << 3, out);
            varint(value, out);
        }
    }

    pub fn bytes(tag: u64, value: &[u8], out: &mut Vec<u8>) {
        if !value.is_empty() {
            varint(tag << 3 | 2, out);
            varint(value.len() as u64, out);
            out.extend_from_slice(value);
        }
    }
}
