//! Reads a caller's body: bounded in size, in time, and in what all bodies together may hold.

use crate::base::limits::{BodyMemory, Limits};
use crate::base::problem::Problem;
use crate::reactor::shared::SharedState;
use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

/// A share of the body memory, given back when the last piece of the body is dropped.
struct Share {
    memory: BodyMemory,
    bytes: usize,
}

impl Share {
    /// # Errors
    /// When all shares together would be more than `max`.
    fn grow(&mut self, more: usize, max: usize) -> Result<(), Problem> {
        let held = self.memory.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        if held.saturating_add(more) > max { Err(Problem::BODY_MEMORY) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Held {
    whole: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.whole
    }
}

/// # Errors
/// Too large, too slow, too much at once, or broken off.
pub async fn read_body(body: Incoming, shared: &SharedState) -> Result<Bytes, Problem> {
    let limits = &shared.limits;
    if body.size_hint().lower() > limits.body_bytes_max as u64 {
        return Err(Problem::TOO_LARGE);
    }
    let mut body = body;
    // Small bodies come whole with the head: only others are worth a timer and a share of the memory.
    let first = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending => Poll::Ready(None),
    });
    let first = match first.await {
        None => Bytes::new(),
        Some(None) => return Ok(Bytes::new()),
        Some(Some(Err(_))) => return Err(Problem::BODY_BROKEN),
        Some(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
    };
    if first.len() > limits.body_bytes_max {
        return Err(Problem::TOO_LARGE);
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let rest = Box::pin(collect(first, body, limits, shared.body_memory.clone()));
    tokio::time::timeout(limits.body_read, rest).await.map_err(|_| Problem::BODY_TIMEOUT)?
}

/// The length in its head is reserved before anything of it is read.
async fn collect(first: Bytes, mut body: Incoming, limits: &Limits, memory: BodyMemory) -> Result<Bytes, Problem> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(limits.body_bytes_max);
    let mut share = Share { memory, bytes: 0 };
    share.grow(first.len() + expected, limits.body_memory_max)?;
    let mut whole = Vec::with_capacity(first.len() + expected);
    whole.extend_from_slice(&first);
    drop(first);
    while let Some(more) = next(&mut body, limits.body_idle).await? {
        let length = whole.len() + more.len();
        if length > limits.body_bytes_max {
            return Err(Problem::TOO_LARGE);
        }
        if length > share.bytes {
            // In steps, as the vector grows: not for each piece.
            let step = (length.max(share.bytes * 2)).min(limits.body_bytes_max) - share.bytes;
            share.grow(step, limits.body_memory_max)?;
        }
        whole.extend_from_slice(&more);
    }
    Ok(Bytes::from_owner(Held { whole, _share: share }))
}

async fn next(body: &mut Incoming, idle: Duration) -> Result<Option<Bytes>, Problem> {
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        match tokio::time::timeout(idle, frame).await.map_err(|_| Problem::BODY_TIMEOUT)? {
            None => return Ok(None),
            Some(Err(_)) => return Err(Problem::BODY_BROKEN),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
