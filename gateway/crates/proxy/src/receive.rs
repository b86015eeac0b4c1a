//! Reads a caller's body: bounded in size and time.

use crate::limits::Limits;
use crate::problem::Problem;
use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// # Errors
/// Too large, too slow, or broken off.
pub async fn receive(body: Incoming, limits: &Limits) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limits.body_bytes_max as u64 {
        return Err(Problem::TOO_LARGE);
    }
    let mut body = body;
    // Small bodies come with the head, whole: only one that does not is worth a timer.
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
    let rest = Box::pin(collect(first, body, limits.body_bytes_max));
    tokio::time::timeout(limits.body_read, rest).await.map_err(|_| Problem::BODY_TIMEOUT)?
}

async fn collect(first: Bytes, mut body: Incoming, max: usize) -> Result<Bytes, Problem> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(max);
    let mut whole = Vec::with_capacity(first.len() + expected);
    whole.extend_from_slice(&first);
    while let Some(more) = next(&mut body).await? {
        if whole.len() + more.len() > max {
            return Err(Problem::TOO_LARGE);
        }
        whole.extend_from_slice(&more);
    }
    Ok(whole.into())
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
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
