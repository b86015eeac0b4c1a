//! A token bucket, so that invented keys cannot flood the control plane with requests.

use std::time::Instant;

pub(crate) struct TokenBucket {
    tokens: f64,
    filled: Instant,
    per_second: f64,
    burst: f64,
}

impl TokenBucket {
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { tokens: burst, filled: Instant::now(), per_second, burst }
    }

    /// Takes one token if there is one.
    pub fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(allowed));
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_refuses() {
        let mut bucket = TokenBucket::new(0.0, 2.0);
        assert_eq!([bucket.take(), bucket.take(), bucket.take()], [true, true, false]);
    }
}
