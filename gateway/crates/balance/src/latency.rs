//! Peak EWMA of the time to the first token: it rises at once and falls slowly (as in Finagle's `PeakEwma`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// After this long without a new peak two thirds of the old one are forgotten.
const DECAY_MS: f32 = 10_000.0;

/// Microseconds as `f32` in the upper half, the time in milliseconds in the lower; zero = nothing is known.
#[derive(Debug, Default)]
pub(crate) struct PeakEwma(AtomicU64);

fn pack(us: f32, now_ms: u64) -> u64 {
    u64::from(us.to_bits()) << 32 | (now_ms & u64::from(u32::MAX))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // the halves of a word; ages of more than minutes are all the same
fn unpack(word: u64, now_ms: u64) -> (f32, f32) {
    let age = (now_ms as u32).wrapping_sub(word as u32);
    // Another thread's clock may be some milliseconds ahead; that must not count as an age of 49 days.
    let age = if age > u32::MAX / 2 { 0 } else { age };
    (f32::from_bits((word >> 32) as u32), age as f32)
}

impl PeakEwma {
    pub fn observe(&self, us: u64, now_ms: u64) {
        #[allow(clippy::cast_precision_loss)] // a mean
        let sample = (us as f32).max(1.0);
        let mut held = self.0.load(Relaxed);
        loop {
            let (mean, age) = unpack(held, now_ms);
            let weight = (-age.max(1.0) / DECAY_MS).exp();
            let new = if held == 0 || sample >= mean { sample } else { mean * weight + sample * (1.0 - weight) };
            match self.0.compare_exchange_weak(held, pack(new, now_ms), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => held = other,
            }
        }
    }

    /// Microseconds; `None` = nothing was observed yet.
    pub fn mean_us(&self, now_ms: u64) -> Option<f32> {
        let held = self.0.load(Relaxed);
        if held == 0 {
            return None;
        }
        let (mean, age) = unpack(held, now_ms);
        // No endpoint is avoided indefinitely because of one slow response long ago.
        Some((mean * (-age / (3.0 * DECAY_MS)).exp()).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_count_at_once_and_fade() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.mean_us(0), None);
        ewma.observe(1_000, 5);
        ewma.observe(90_000, 10);
        assert!(ewma.mean_us(10).unwrap() > 89_000.0, "a peak counts at once");
        ewma.observe(1_000, 20);
        assert!(ewma.mean_us(20).unwrap() > 80_000.0, "and one fast response does not undo it");
        for i in 0..400_u64 {
            ewma.observe(1_000, 20 + i * 100);
        }
        assert!(ewma.mean_us(40_000).unwrap() < 5_000.0);
        assert!(ewma.mean_us(400_000).unwrap() < 10.0, "an endpoint without calls is tried again");
    }
}
