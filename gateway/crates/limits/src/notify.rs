//! Waking tasks without a runtime: one waiter ([`Notify`]) or many ([`VersionWatch`]).

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Reactors notify, the control thread waits. A second notification before the first was received costs one load.
#[derive(Debug, Default)]
pub struct Notify {
    is_notified: AtomicBool,
    waiter: Mutex<Option<Waker>>,
}

impl Notify {
    pub fn notify(&self) {
        if self.is_notified.load(Ordering::Acquire) || self.is_notified.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(waker) = lock(&self.waiter).take() {
            waker.wake();
        }
    }

    /// Ends as soon as there was a notification since the last time.
    pub async fn notified(&self) {
        poll_fn(|cx| {
            *lock(&self.waiter) = Some(cx.waker().clone());
            if self.is_notified.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A version that grows with each change and wakes everything that waits for one.
#[derive(Debug, Default)]
pub struct VersionWatch {
    version: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl VersionWatch {
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn increment(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends as soon as the version is above `seen`.
    pub async fn changed_after(&self, seen: u64) {
        poll_fn(|cx| {
            let mut waiting = lock(&self.waiting);
            if self.version() > seen {
                return Poll::Ready(());
            }
            waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Nothing panics while holding one of these mutexes, so poisoning is ignored.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
