//! Waking others without a runtime: one listener ([`Bell`]) or many ([`News`]).

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Rung by reactors, heard by the control thread. Ringing a bell that was rung already costs one load.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Bell {
    pub fn ring(&self) {
        if self.rung.load(Ordering::Acquire) || self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(waker) = lock(&self.listener).take() {
            waker.wake();
        }
    }

    /// Ends when it was rung since the last time.
    pub async fn heard(&self) {
        poll_fn(|cx| {
            *lock(&self.listener) = Some(cx.waker().clone());
            if self.rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Something changed: all who wait look again.
#[derive(Debug, Default)]
pub struct News {
    version: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl News {
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn tell(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends when there is news after `seen`.
    pub async fn after(&self, seen: u64) {
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

/// Nothing panics while holding one of these.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
