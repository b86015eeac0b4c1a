//! What one running call has taken. Dropped before the call was opened, it gives all of it back; dropped after that without a settlement,
//! what was reserved stays charged: an unknown end never costs less than it may have cost.

use crate::budget::Piece;
use crate::limit::{Exceeded, Limit};
use crate::price::{Price, Tokens};
use crate::registry::Registry;
use crate::window::Place;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What was taken of one limit.
#[derive(Debug)]
pub(crate) struct Taken {
    limit: Arc<Limit>,
    /// It stands among the calls that run.
    runs: bool,
    request: Option<Place>,
    tokens: Option<(Place, u64)>,
}

/// What was reserved of one budget: `pieces[from..to]` of the grant.
#[derive(Debug)]
pub(crate) struct Hold {
    pub price: Arc<Price>,
    pub from: usize,
    pub to: usize,
    /// The part that stands for the input and the call itself.
    pub input: i64,
}

#[derive(Debug)]
pub struct Grant {
    pub(crate) registry: Arc<Registry>,
    pub(crate) taken: Vec<Taken>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) cap: Option<u64>,
    charges: Vec<i64>,
    is_open: bool,
}

/// How a call ended, as far as money and tokens go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The engine's own numbers.
    Used(Tokens),
    /// Output that passed, counted by us. Its input is charged at the bound.
    Counted(u64),
    /// No engine worked on it.
    Nothing,
    /// An engine may have worked on it, how much is not known.
    Unknown,
}

impl Taken {
    pub fn take(limit: &Arc<Limit>, estimate: u64, now_us: u64) -> Result<Self, Exceeded> {
        limit.enter()?;
        // From here on the drop gives back what was taken so far.
        Self { limit: limit.clone(), runs: true, request: None, tokens: None }.filled(estimate, now_us)
    }

    /// Of an answer within a session, which stands among the calls that run itself.
    pub fn take_turn(limit: &Arc<Limit>, estimate: u64, now_us: u64) -> Result<Self, Exceeded> {
        Self { limit: limit.clone(), runs: false, request: None, tokens: None }.filled(estimate, now_us)
    }

    fn filled(mut self, estimate: u64, now_us: u64) -> Result<Self, Exceeded> {
        let all = self.limit.take_request(now_us).and_then(|request| {
            self.request = request;
            self.tokens = self.limit.take_tokens(estimate, now_us)?;
            Ok(())
        });
        match all {
            Ok(()) => Ok(self),
            Err(exceeded) => {
                self.give_back(now_us);
                Err(exceeded)
            }
        }
    }

    fn give_back(&mut self, now_us: u64) {
        if let Some(place) = self.request.take() {
            self.limit.give_back_request(place);
        }
        self.correct(0, now_us);
    }

    fn correct(&mut self, used: u64, now_us: u64) {
        if let Some((place, reserved)) = self.tokens.take() {
            self.limit.correct_tokens(place, reserved, used, now_us);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.runs {
            self.limit.leave();
        }
    }
}

impl Grant {
    pub(crate) fn new(registry: &Arc<Registry>) -> Self {
        Self { registry: registry.clone(), taken: Vec::new(), pieces: Vec::new(), holds: Vec::new(), cap: None, charges: Vec::new(), is_open: false }
    }

    /// The cap on output (for each choice) that must be spliced into the body, because the reservation pays no more.
    #[must_use]
    pub fn cap(&self) -> Option<u64> {
        self.cap
    }

    /// What was reserved of which lease, in the order of [`Self::charges`].
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The price by which it was reckoned.
    #[must_use]
    pub fn price_id(&self) -> &str {
        self.holds.first().map_or("", |hold| &hold.price.id)
    }

    /// The open record is written: from now on only a settlement lowers what was taken.
    pub fn open(&mut self) {
        self.is_open = true;
    }

    /// A session has begun: its answers take their own tokens.
    pub fn give_back_tokens(&mut self, now_us: u64) {
        self.taken.iter_mut().for_each(|taken| taken.correct(0, now_us));
    }

    /// The first answer of a session counts in place of its opening.
    pub fn give_back_requests(&mut self) {
        for taken in &mut self.taken {
            if let Some(place) = taken.request.take() {
                taken.limit.give_back_request(place);
            }
        }
    }

    /// Reckons what the call costs, before the record of its end is written. [`Self::settle`] then makes it so.
    pub fn reckon(&mut self, end: &End) -> &[i64] {
        self.charges.clear();
        for hold in &self.holds {
            let pieces = &self.pieces[hold.from..hold.to];
            let reserved: i64 = pieces.iter().map(|piece| piece.nano).sum();
            let mut charge = match end {
                End::Used(tokens) => hold.price.charge(tokens),
                End::Counted(output) => {
                    let output = hold.price.charge(&Tokens { output: *output, ..Tokens::default() });
                    hold.input.saturating_add(output).min(reserved)
                }
                End::Nothing => 0,
                End::Unknown => reserved,
            };
            for (index, piece) in pieces.iter().enumerate() {
                // What is above the reservation goes to the last piece.
                let part = if index + 1 == pieces.len() { charge } else { charge.min(piece.nano) };
                self.charges.push(part);
                charge -= part;
            }
        }
        &self.charges
    }

    /// Gives back what was not used, and counts what was used beyond the reservation.
    pub fn settle(&mut self, end: &End, now_us: u64) {
        if self.charges.len() != self.pieces.len() {
            self.reckon(end);
        }
        for (piece, charge) in self.pieces.drain(..).zip(self.charges.drain(..)) {
            piece.lease.settle(piece.nano, charge);
            if charge > piece.nano {
                self.registry.overdraft(charge - piece.nano);
                tracing::warn!(lease_id = %piece.lease.id, reserved = piece.nano, charge, "a call cost more than the bound that was reserved");
            }
        }
        self.holds.clear();
        if *end == End::Unknown {
            self.registry.stats.reservations_kept.fetch_add(1, Ordering::Relaxed);
        }
        for taken in &mut self.taken {
            match end {
                End::Used(tokens) => taken.correct(tokens.input.saturating_add(tokens.output), now_us),
                End::Nothing => taken.correct(0, now_us),
                // The estimate stands.
                End::Counted(_) | End::Unknown => taken.tokens = None,
            }
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if !self.is_open {
            // The newest moment is not needed: what is given back is taken from where it was counted.
            self.taken.iter_mut().for_each(|taken| taken.give_back(0));
            self.pieces.drain(..).for_each(|piece| piece.lease.settle(piece.nano, 0));
        }
        self.pieces.drain(..).for_each(|piece| piece.lease.settle(piece.nano, piece.nano));
    }
}
