//! Reads the log behind the writers, joins each settle with its open, and remembers batches until they are
//! acknowledged. Records that are not yet shipped stay on disk, not in memory.

use crate::log::Log;
use crate::record::{append_wire, id_of, wire};
use crate::record_id::RecordId;
use crate::segment::{HEADER, RecordKind, Segment};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

#[derive(Clone)]
struct Position {
    segment: Arc<Segment>,
    at: usize,
}

/// A call that has ended, by the positions of its records. Without a settle its process died, and its end is unknown.
struct EndedCall {
    opens: Vec<Position>,
    settle: Option<Position>,
}

/// Acknowledged calls whose segment does not know it yet. If the process is killed before that, they ship again under
/// the same record ids.
struct UnmarkedCalls {
    segment: Arc<Segment>,
    since: Instant,
    at: Vec<usize>,
}

struct Cursor {
    segment: Arc<Segment>,
    at: usize,
}

/// A `UsageBatch` message to be sent, already encoded.
pub struct Batch {
    pub id: String,
    pub message: Vec<u8>,
}

pub struct Shipper {
    log: Arc<Log>,
    /// Being read, oldest first. The segments of a lane are in the order it wrote them.
    reading: VecDeque<Cursor>,
    /// Read to the end, waiting for acknowledgements.
    read: Vec<Arc<Segment>>,
    open: HashMap<RecordId, Vec<Position>, foldhash::fast::RandomState>,
    ready: VecDeque<EndedCall>,
    sent: HashMap<String, Vec<EndedCall>, foldhash::fast::RandomState>,
    unmarked: Vec<UnmarkedCalls>,
    batches: u64,
    process: RecordId,
}

impl Shipper {
    pub(crate) fn new(log: Arc<Log>, old: Vec<Arc<Segment>>) -> Self {
        let process = log.process_id();
        let (reading, read, ready, open, sent) = (VecDeque::new(), Vec::new(), VecDeque::new(), HashMap::default(), HashMap::default());
        let mut shipper = Self { log, reading, read, open, ready, sent, unmarked: Vec::new(), batches: 0, process };
        shipper.recover(old);
        shipper
    }

    /// Reads everything that ended processes left. Calls still open there end as unknown. After a second crash before
    /// the acknowledgement they are read again under the same record id, so nothing need be written. The open calls of
    /// this process are kept apart meanwhile.
    fn recover(&mut self, old: Vec<Arc<Segment>>) {
        if old.is_empty() {
            return;
        }
        let ready_before = self.ready.len();
        let cursors = old.into_iter().map(|segment| Cursor { segment, at: HEADER }).collect();
        let (reading, open) = (std::mem::replace(&mut self.reading, cursors), std::mem::take(&mut self.open));
        self.read_until(usize::MAX);
        self.reading = reading;
        for (_, opens) in std::mem::replace(&mut self.open, open) {
            self.ready.push_back(EndedCall { opens, settle: None });
        }
        self.log.stats.ended.fetch_add((self.ready.len() - ready_before) as u64, Ordering::Relaxed);
        self.sweep();
    }

    /// Takes over the segments that this process began meanwhile, and those of processes that ended meanwhile.
    fn take_new(&mut self) {
        let (new, abandoned) = self.log.take_new();
        self.recover(abandoned);
        self.reading.extend(new.into_iter().map(|segment| Cursor { segment, at: HEADER }));
    }

    /// Up to `max` ended calls that were not sent yet.
    pub fn next_batch(&mut self, max: usize) -> Option<Batch> {
        self.take_new();
        if self.ready.len() < max {
            self.read_until(max);
        }
        let calls: Vec<_> = self.ready.drain(..self.ready.len().min(max)).collect();
        self.sweep();
        if calls.is_empty() {
            return None;
        }
        self.batches += 1;
        let id = format!("{}-{}", &*self.process.text(), self.batches);
        let message = encode(&id, &calls);
        self.sent.insert(id.clone(), calls);
        Some(Batch { id, message })
    }

    /// The control plane has committed the batch.
    pub fn acknowledge(&mut self, batch_id: &str) {
        let Some(calls) = self.sent.remove(batch_id) else {
            return;
        };
        self.log.stats.shipped.fetch_add(calls.len() as u64, Ordering::Relaxed);
        for call in &calls {
            self.mark(call);
            for position in call.positions() {
                position.segment.pending.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.sweep();
    }

    /// Marks the records of an acknowledged call: later, if they lie in one segment of this process, otherwise at once.
    /// An open record whose settle's segment is deleted would look like a call that never ended. And a process that is
    /// killed again and again must make progress with what the ones before it left.
    fn mark(&mut self, call: &EndedCall) {
        let Some(first) = call.opens.first() else {
            return;
        };
        let is_own = first.segment.process_id == self.process;
        if !is_own || !call.positions().all(|position| Arc::ptr_eq(&position.segment, &first.segment)) {
            return call.positions().for_each(|position| position.segment.acknowledge(position.at));
        }
        let at = call.positions().map(|position| position.at);
        match self.unmarked.iter_mut().find(|unmarked| Arc::ptr_eq(&unmarked.segment, &first.segment)) {
            Some(unmarked) => unmarked.at.extend(at),
            None => self.unmarked.push(UnmarkedCalls { segment: first.segment.clone(), since: Instant::now(), at: at.collect() }),
        }
    }

    /// The connection broke: what was sent on it is sent again.
    pub fn resend(&mut self) {
        for (_, calls) in std::mem::take(&mut self.sent) {
            self.ready.extend(calls);
        }
    }

    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// The id of this run.
    #[must_use]
    pub fn process_id(&self) -> RecordId {
        self.process
    }

    /// Earlier processes whose records are all acknowledged, each returned once. Call [`Self::forget_process`] when the
    /// control plane knows.
    pub fn take_shipped_processes(&mut self) -> Vec<RecordId> {
        self.log.take_shipped_processes()
    }

    /// The control plane knows that this process has shipped everything.
    pub fn forget_process(&mut self, process_id: &str) {
        self.log.forget_process(process_id);
    }

    /// Whether everything that ended was acknowledged.
    pub fn is_shipped(&mut self) -> bool {
        self.take_new();
        self.read_until(1);
        self.sent.is_empty() && self.ready.is_empty()
    }

    /// Reads until `max` calls are ready. Between lanes the order does not matter; within a lane it is kept.
    fn read_until(&mut self, max: usize) {
        let mut index = 0;
        while index < self.reading.len() && self.ready.len() < max {
            // Loaded before reading: a segment sealed after that may have got a last record.
            let sealed = self.reading[index].segment.sealed.load(Ordering::Acquire);
            self.read_segment(index, max);
            let cursor = &self.reading[index];
            let is_read = sealed && self.ready.len() < max;
            if is_read {
                self.read.push(cursor.segment.clone());
                self.reading.remove(index);
            } else {
                index += 1;
            }
        }
    }

    fn read_segment(&mut self, index: usize, max: usize) {
        let (segment, mut at) = (self.reading[index].segment.clone(), self.reading[index].at);
        while self.ready.len() < max {
            let Some(record) = segment.read(at) else {
                break;
            };
            let position = Position { segment: segment.clone(), at };
            at = record.next;
            let (Some(id), false) = (id_of(record.payload), record.acknowledged) else {
                continue;
            };
            match record.kind {
                RecordKind::Open => {
                    segment.pending.fetch_add(1, Ordering::Relaxed);
                    self.open.entry(id).or_default().push(position);
                }
                // Without an open the call was acknowledged: the open's segment is already deleted.
                RecordKind::Settle => {
                    if let Some(opens) = self.open.remove(&id) {
                        segment.pending.fetch_add(1, Ordering::Relaxed);
                        self.ready.push_back(EndedCall { opens, settle: Some(position) });
                    }
                }
            }
        }
        self.reading[index].at = at;
    }

    /// Deletes segments in which no record waits for an acknowledgement, and marks calls that have waited long enough.
    fn sweep(&mut self) {
        let (log, unmarked) = (&self.log, &mut self.unmarked);
        self.read.retain(|segment| {
            let done = segment.pending.load(Ordering::Relaxed) == 0;
            if done {
                unmarked.retain(|unmarked| !Arc::ptr_eq(&unmarked.segment, segment));
                log.delete(segment);
            }
            !done
        });
        unmarked.retain(|unmarked| {
            let due = unmarked.since.elapsed() >= log.options.mark_after;
            if due {
                unmarked.mark();
            }
            !due
        });
    }
}

impl UnmarkedCalls {
    fn mark(&self) {
        self.at.iter().for_each(|at| self.segment.acknowledge(*at));
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.unmarked.iter().for_each(UnmarkedCalls::mark);
    }
}

impl EndedCall {
    fn positions(&self) -> impl Iterator<Item = &Position> {
        self.opens.iter().chain(&self.settle)
    }

    fn append_wire(&self, out: &mut Vec<u8>) -> Option<()> {
        let open = self.opens.last()?;
        let settle = self.settle.as_ref().map(|position| position.segment.payload(position.at));
        append_wire(open.segment.payload(open.at), settle, &open.segment.gateway_id, open.segment.process_id, out)
    }
}

fn encode(id: &str, calls: &[EndedCall]) -> Vec<u8> {
    let mut message = Vec::with_capacity(calls.len() * 448 + 64);
    wire::bytes(1, id.as_bytes(), &mut message);
    let mut record = Vec::with_capacity(1024);
    for call in calls {
        record.clear();
        if call.append_wire(&mut record).is_some() {
            wire::bytes(2, &record, &mut message);
        }
    }
    message
}
