//! Metering that survives kill -9: a write-ahead log in mapped, preallocated files, and the queue that ships it.
//!
//! Owns: the log's directories, segments and records; recovery; which records still wait for an acknowledgement.
//! Promises: [`Lane::open`] and [`Lane::settle`] are stores into the page cache, so they outlive the process the moment they return and cost no
//! system call; room for the settle is reserved by the open, so a settle never fails; every opened call ships exactly one terminal record,
//! as often as needed until acknowledged, and after a kill once more what was acknowledged just before (the receiver keeps each record id once); a background sync bounds what a power failure takes, and
//! [`Mark::poll`] waits for it where nothing may be taken; a full disk refuses calls, never the start, and passes by itself; what another
//! process has open is left alone until that process is gone.
//! Needs: the wire's `UsageRecord`; a local file system (no network ones).

mod directory;
mod durable;
mod keeper;
mod lane;
mod processes;
mod queue;
mod record;
mod record_id;
mod segment;

pub use directory::LogError;
pub use durable::{Mark, NotSynced};
pub use keeper::{Log, Options, Stats};
pub use lane::{Full, Lane, Ticket};
pub use queue::{Batch, Queue};
pub use record::{Opened, Settled, Use};
pub use record_id::{IdText, RecordId, random};
pub use segment::Disk;
pub use tenon_contract::{Operation, Outcome, UsageSource};
