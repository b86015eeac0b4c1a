//! A sample of the calls, for operators: one JSON line each, off unless a ratio is set. What a caller wrote is never in it. Bodies are
//! off by default too, and every text in them is replaced by its length and a mark that is valid until the process ends. Headers and keys are not logged.

use crate::observe::call_trace::CompletedCall;
use crate::observe::explain::to_json;
use bytes::Bytes;
use ring::hmac;
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// With bodies of at most [`BODY_BYTES_MAX`] this bounds what waits to be written.
const QUEUE_MAX: usize = 256;
const BODY_BYTES_MAX: usize = 64 << 10;
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// The values of these members belong to the protocols, not to callers: they are not redacted.
const PLAIN_MEMBERS: [&str; 6] = ["model", "role", "type", "object", "finish_reason", "reasoning_effort"];
const PLAIN_BYTES_MAX: usize = 64;

#[derive(Clone, Debug)]
pub struct RequestLog {
    queue: SyncSender<Entry>,
    /// Of 2^64.
    threshold: u64,
    bodies: bool,
    pub counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub struct Counts {
    pub written: AtomicU64,
    pub dropped: AtomicU64,
}

struct Entry {
    call: CompletedCall,
    body: Option<Bytes>,
}

impl RequestLog {
    /// Opens the file, for its owner alone, and starts the thread that writes it.
    ///
    /// # Errors
    /// When the file cannot be opened or the system gives no thread.
    pub fn start(path: &Path, ratio: f64, bodies: bool) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let (queue, entries) = sync_channel(QUEUE_MAX);
        let counts = Arc::new(Counts::default());
        let counting = counts.clone();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        std::thread::Builder::new().name("request-log".into()).spawn(move || write(file, &entries, &key, &counting))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // saturating, and the last bits do not matter
        let threshold = (ratio * u64::MAX as f64) as u64;
        Ok(Self { queue, threshold, bodies, counts })
    }

    pub fn samples(&self, random: u64) -> bool {
        random <= self.threshold
    }

    /// Never waits: when the queue is full, the entry is dropped and counted.
    pub fn push(&self, call: CompletedCall, body: Bytes) {
        let body = (self.bodies && body.len() <= BODY_BYTES_MAX).then_some(body);
        if self.queue.try_send(Entry { call, body }).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn write(file: File, entries: &Receiver<Entry>, key: &hmac::Key, counts: &Counts) {
    let mut out = BufWriter::new(file);
    let mut is_failing = false;
    loop {
        let written = match entries.recv_timeout(FLUSH_EVERY) {
            Ok(entry) => writeln!(out, "{}", line(&entry, key)).inspect(|()| {
                counts.written.fetch_add(1, Relaxed);
            }),
            Err(RecvTimeoutError::Timeout) => out.flush(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match written {
            Ok(()) => is_failing = false,
            Err(error) => {
                counts.dropped.fetch_add(1, Relaxed);
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!("the request log cannot be written: {error}");
                }
            }
        }
    }
}

fn line(entry: &Entry, key: &hmac::Key) -> Value {
    let mut line = to_json(&entry.call);
    let body = entry.body.as_ref().and_then(|body| serde_json::from_slice::<Value>(body).ok());
    if let (Some(body), Value::Object(line)) = (body, &mut line) {
        line.insert("request".into(), redacted("", body, key));
    }
    line
}

fn redacted(member: &str, value: Value, key: &hmac::Key) -> Value {
    match value {
        Value::String(text) if PLAIN_MEMBERS.contains(&member) && text.len() <= PLAIN_BYTES_MAX => Value::String(text),
        Value::String(text) => mark(&text, key),
        Value::Array(items) => items.into_iter().map(|item| redacted("", item, key)).collect(),
        Value::Object(members) => {
            let redact = |(name, value): (String, Value)| {
                let value = redacted(&name, value, key);
                (name, value)
            };
            Value::Object(members.into_iter().map(redact).collect::<Map<_, _>>())
        }
        plain => plain,
    }
}

/// The same text has the same mark, so that repetition shows. The key is stored nowhere, so a short text cannot be guessed from its mark.
fn mark(text: &str, key: &hmac::Key) -> Value {
    let tag = hmac::sign(key, text.as_bytes());
    let mark: String = tag.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "length": text.len(), "mark": mark })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_caller_wrote_is_left() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"k");
        let body = json!({
            "model": "m", "temperature": 0.5, "stop": ["SECRET"], "role": "SECRET ".repeat(20),
            "messages": [{"role": "user", "content": "SECRET"}, {"role": "user", "content": [{"type": "text", "text": "SECRET"}]}],
            "tools": [{"type": "function", "function": {"name": "SECRET", "parameters": {"type": "object", "enum": ["SECRET"]}}}],
        });
        let out = redacted("", body, &key);
        assert!(!out.to_string().contains("SECRET"), "{out}");
        assert_eq!((&out["model"], &out["temperature"], &out["messages"][0]["role"]), (&json!("m"), &json!(0.5), &json!("user")));
        assert_eq!(out["messages"][0]["content"], out["stop"][0], "the same text, the same mark");
        assert_eq!(out["stop"][0]["length"], 6);
    }
}
