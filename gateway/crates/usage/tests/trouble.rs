//! A log without room, a disk that fails, another process on the same directory.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use support::{open_call, options, records, settled, ship, unlock, wait_for};
use tenon_usage::{Disk, Lane, Log, LogFull, NotSynced, Outcome, Shipper};

/// Ends calls until the log keeps refusing, and returns their number.
fn fill(lane: &Lane) -> usize {
    let (mut ended, mut refused) = (0, 0);
    while refused < 50 {
        match open_call(lane) {
            Ok((_, ticket)) => {
                lane.settle(ticket, &settled());
                ended += 1;
            }
            Err(LogFull) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    ended
}

#[test]
fn a_log_that_is_full_at_start_refuses_ships_and_serves_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, shipper) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let left = fill(&lane);
    log.stop();
    drop((lane, shipper));
    unlock(log);

    let (log, mut shipper) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    assert!(log.stats.is_full.load(Ordering::Relaxed));
    assert!(matches!(open_call(&lane), Err(LogFull)), "without room there is no call");
    let shipped = ship(&mut shipper);
    assert_eq!(shipped.len(), left);
    assert!(shipped.iter().all(|record| record.outcome() == Outcome::Completed));
    wait_for("room again", || !log.stats.is_full.load(Ordering::Relaxed));
    let (id, ticket) = open_call(&lane).unwrap();
    lane.settle(ticket, &settled());
    assert_eq!(ship(&mut shipper)[0].record_id, id.0.to_vec());
    log.stop();
}

#[test]
fn segments_without_records_are_deleted_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..40 {
        let (log, shipper) = Log::start(options(dir.path())).unwrap();
        assert!(!log.stats.is_full.load(Ordering::Relaxed), "spares of earlier processes took the room");
        log.stop();
        drop(shipper);
        unlock(log);
    }
}

static DISK_FULL: AtomicBool = AtomicBool::new(true);

fn allocate_unless_full(file: &File, size: usize) -> io::Result<()> {
    if DISK_FULL.load(Ordering::SeqCst) {
        // Like a real disk: a part of the file is written, then no more.
        file.set_len(size as u64 / 2)?;
        return Err(io::ErrorKind::StorageFull.into());
    }
    (Disk::default().allocate)(file, size)
}

#[test]
fn a_full_disk_does_not_prevent_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.disk.allocate = allocate_unless_full;
    let (log, mut shipper) = Log::start(options).unwrap();
    let lane = log.lane();
    for _ in 0..20 {
        assert!(matches!(open_call(&lane), Err(LogFull)));
        assert!(shipper.next_batch(9).is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(
        std::fs::read_dir(dir.path().join("wal/0")).unwrap().flatten().filter(|e| e.path().extension().is_some()).count(),
        0,
        "no partial files"
    );
    DISK_FULL.store(false, Ordering::SeqCst);
    wait_for("room", || {
        open_call(&lane).is_ok_and(|(_, ticket)| {
            lane.settle(ticket, &settled());
            true
        })
    });
    // Full again, later: calls with room go on, others are refused, and the log recovers again.
    DISK_FULL.store(true, Ordering::SeqCst);
    assert!(fill(&lane) > 0);
    DISK_FULL.store(false, Ordering::SeqCst);
    wait_for("room", || {
        open_call(&lane).is_ok_and(|(_, ticket)| {
            lane.settle(ticket, &settled());
            true
        })
    });
    assert!(ship(&mut shipper).iter().all(|record| record.outcome() == Outcome::Completed));
    log.stop();
}

static DISK_BROKEN: AtomicBool = AtomicBool::new(false);
static SYNCS: Mutex<u32> = Mutex::new(0);

fn sync_unless_broken(file: &File) -> io::Result<()> {
    *SYNCS.lock().unwrap() += 1;
    if DISK_BROKEN.swap(false, Ordering::SeqCst) {
        return Err(io::Error::from_raw_os_error(5)); // EIO, reported once like a real one
    }
    file.sync_data()
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn wait_synced(lane: &Lane) -> Result<(), NotSynced> {
    let mark = lane.sync_point().unwrap();
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    loop {
        wait_for("a wake-up", || flag.0.swap(false, Ordering::SeqCst));
        if let Poll::Ready(end) = mark.poll(&mut Context::from_waker(&waker)) {
            return end;
        }
    }
}

fn ended_call(lane: &Lane) {
    let (_, ticket) = open_call(lane).unwrap();
    lane.settle(ticket, &settled());
}

#[test]
fn a_call_that_waits_for_the_disk_is_served_at_once_and_gets_its_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.sync_every = Duration::from_secs(3600); // so that only a waiting call triggers a sync
    options.disk.sync = sync_unless_broken;
    let (log, mut shipper) = Log::start(options).unwrap();
    let lane = log.lane();
    ended_call(&lane);
    let begun = Instant::now();
    assert_eq!(wait_synced(&lane), Ok(()));
    assert!(begun.elapsed() < Duration::from_secs(5));
    let syncs = *SYNCS.lock().unwrap();
    assert_eq!(wait_synced(&lane), Ok(()));
    assert_eq!(*SYNCS.lock().unwrap(), syncs, "what is on the disk is not synced again");

    ended_call(&lane);
    DISK_BROKEN.store(true, Ordering::SeqCst);
    assert_eq!(wait_synced(&lane), Err(NotSynced));
    assert_eq!(wait_synced(&lane), Err(NotSynced), "a later success of the system's call means nothing");
    assert_eq!(log.stats.sync_errors.load(Ordering::Relaxed), 1);
    // The next call goes to another segment, and nothing that was written is lost.
    ended_call(&lane);
    assert_eq!(wait_synced(&lane), Ok(()));
    assert_eq!(ship(&mut shipper).len(), 3);
    log.stop();
}

#[test]
fn overlapping_processes_settle_what_is_theirs_and_inherit_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (old, mut old_shipper) = Log::start(options(dir.path())).unwrap();
    let old_lane = old.lane();
    let (long_id, long) = open_call(&old_lane).unwrap();
    let (lost_id, lost) = open_call(&old_lane).unwrap();
    let (new, mut new_shipper) = Log::start(options(dir.path())).unwrap();
    let new_lane = new.lane();
    let (own_id, own) = open_call(&new_lane).unwrap();
    // Longer than the interval of adoption: the old process still holds its directory.
    std::thread::sleep(Duration::from_millis(1300));
    assert!(new_shipper.next_batch(9).is_none(), "the old process's open calls are its own");
    old_lane.settle(long, &settled());
    assert!(new_shipper.next_batch(9).is_none(), "and so are its ended ones");
    let sent = old_shipper.next_batch(9).unwrap();
    assert_eq!(records(&sent)[0].record_id, long_id.0.to_vec());
    old_shipper.acknowledge(&sent.id);
    let _dies_with_its_process = lost;
    old.stop();
    drop((old_lane, old_shipper));
    unlock(old);

    let inherited = wait_for_batch(&mut new_shipper);
    assert_eq!(inherited, [(lost_id.0.to_vec(), Outcome::Unknown)]);
    new_lane.settle(own, &settled());
    assert_eq!(wait_for_batch(&mut new_shipper), [(own_id.0.to_vec(), Outcome::Completed)]);
    new.stop();
}

fn wait_for_batch(shipper: &mut Shipper) -> Vec<(Vec<u8>, Outcome)> {
    let mut shipped = Vec::new();
    wait_for("a batch", || {
        shipped = ship(shipper).iter().map(|record| (record.record_id.clone(), record.outcome())).collect();
        !shipped.is_empty()
    });
    shipped
}

static SYNCING: AtomicBool = AtomicBool::new(false);
static SYNCED: AtomicBool = AtomicBool::new(false);

fn block_first_sync(_file: &File) -> io::Result<()> {
    if !SYNCING.swap(true, Ordering::SeqCst) {
        wait_for("the test to let it go on", || SYNCED.load(Ordering::SeqCst));
    }
    Ok(())
}

#[test]
fn a_sync_that_takes_seconds_does_not_delay_new_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.bytes_max = 16 << 20;
    options.disk.sync = block_first_sync;
    let (log, _queue) = Log::start(options).unwrap();
    let lane = log.lane();
    lane.settle(open_call(&lane).unwrap().1, &settled());
    wait_for("the sync that takes seconds", || SYNCING.load(Ordering::SeqCst));
    // Thirty segments' worth, all created while the disk is busy.
    for _ in 0..1_500 {
        let mut opened = None;
        wait_for("a segment", || {
            opened = open_call(&lane).ok();
            opened.is_some()
        });
        lane.settle(opened.unwrap().1, &settled());
    }
    assert!(support::files(&log) > 8);
    SYNCED.store(true, Ordering::SeqCst);
    log.stop();
}
