//! Pauses between attempts to reach the control plane: doubling, with jitter, so that a fleet does not come back all at
//! once.

use std::time::Duration;

const PAUSE_MAX: Duration = Duration::from_secs(5);
/// For leases: calls on hard budgets are refused until there is one.
const PAUSE_MAX_LEASES: Duration = Duration::from_secs(1);

pub(crate) struct Backoff {
    failures: u32,
    pause_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { failures: 0, pause_max: PAUSE_MAX }
    }
}

impl Backoff {
    pub fn for_leases() -> Self {
        Self { failures: 0, pause_max: PAUSE_MAX_LEASES }
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause_max.min(Duration::from_millis(100) * 2_u32.pow(self.failures.min(6)));
        self.failures = self.failures.saturating_add(1);
        let jitter = u32::try_from(tenon_usage::random() % 512).unwrap_or(0);
        pause * (512 + jitter) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_leases_have_a_shorter_one() {
        let ms = Duration::from_millis;
        for (mut backoff, pause_max) in [(Backoff::default(), ms(5_000)), (Backoff::for_leases(), ms(1_000))] {
            let pauses: Vec<_> = (0..40).map(|_| backoff.next_pause()).collect();
            assert!(pauses[0] <= ms(100) && pauses[1] <= ms(200));
            assert!(pauses[8..].iter().all(|pause| (pause_max / 2..=pause_max).contains(pause)), "{pauses:?}");
            backoff.reset();
            assert!(backoff.next_pause() <= ms(100));
        }
    }
}
