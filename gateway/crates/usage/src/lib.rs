//! Metering that survives kill -9: a write-ahead log in mapped, preallocated files, and the shipper that sends it to
//! the control plane.
//!
//! Owns: the log's directories, segments and records; recovery; which records still wait for an acknowledgement.
//!
//! Promises:
//! - [`Lane::open`] and [`Lane::settle`] are stores into the page cache: they survive the process as soon as they
//!   return, without a system call.
//! - The open reserves room for the settle, so a settle never fails.
//! - Every opened call ships exactly one terminal record, as often as needed until it is acknowledged. After a kill,
//!   records acknowledged just before are shipped once more; the receiver keeps each record id once.
//! - A background sync bounds what a power failure can take. [`SyncPoint::poll`] waits for it where nothing may be lost.
//! - A full disk refuses calls, never the start, and the log recovers by itself. Calls that another process has open
//!   are left alone until that process is gone.
//!
//! Needs: `contract` (the `UsageRecord` message), and a local file system (no network one).

mod record_id;

mod processes;
mod record;
mod segment;

mod directories;
mod log;
mod sync_point;

mod lane;
mod shipper;

mod wal_manager;

pub use directories::LogError;
pub use lane::{Lane, LogFull, Ticket};
pub use log::{Log, LogOptions, LogStats};
pub use record::{LeaseUse, OpenRecord, SettleRecord};
pub use record_id::{IdText, RecordId, random};
pub use segment::Disk;
pub use shipper::{Batch, Shipper};
pub use sync_point::{NotSynced, SyncPoint};
pub use tenon_contract::{Operation, Outcome, UsageSource};
