//! Every opened call ships exactly once, also after full disks and restarts.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;
use support::{files, open_call, options, records, restart, settled, ship, unlock, wait_for};
use tenon_contract::UsageRecord;
use tenon_usage::{Log, LogFull, Operation, Outcome, UsageSource};

#[test]
fn a_record_arrives_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut shipper) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let (id, ticket) = open_call(&lane).unwrap();
    assert!(shipper.next_batch(9).is_none(), "only ended calls ship");
    lane.settle(ticket, &settled());
    let records = ship(&mut shipper);
    assert_eq!(records.len(), 1);
    let r = &records[0];
    assert_eq!((&r.record_id[..], &*r.request_id, &*r.trace_id, &*r.gateway_id), (&id.0[..], &*id.text(), &*"ab".repeat(16), "gw-1"));
    assert_eq!((&*r.tenant_id, &*r.project_id, &*r.principal_id, &*r.key_id, &*r.session_id), ("tenant", "project", "principal", "key", "session"));
    assert_eq!(
        (&*r.endpoint_id, &*r.model, r.operation(), r.streamed, r.outcome(), r.usage_source()),
        ("endpoint", "model", Operation::Chat, true, Outcome::Completed, UsageSource::Engine)
    );
    assert_eq!((r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens), (1, 2, 3, 4, 5));
    assert_eq!((r.audio_tokens, r.images), (8, 9));
    assert_eq!((r.http_status, r.first_token_us, r.duration_us, r.attempt, r.started_at_unix_us), (200, 6, 7, 1, 77));
    log.stop();
}

#[test]
fn many_segments_ship_once_and_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut shipper) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let (held_id, held) = open_call(&lane).unwrap(); // a long stream, open over many segments
    let mut shipped = Vec::new();
    let mut opened = Vec::new();
    for _ in 0..2000 {
        let (id, ticket) = loop {
            match open_call(&lane) {
                Ok(call) => break call,
                Err(LogFull) => {
                    shipped.extend(ship(&mut shipper));
                    std::thread::yield_now();
                }
            }
        };
        lane.settle(ticket, &settled());
        opened.push(id.0.to_vec());
    }
    lane.settle(held, &settled());
    opened.push(held_id.0.to_vec());
    shipped.extend(ship(&mut shipper));
    let mut ids: Vec<_> = shipped.into_iter().map(|r| r.record_id).collect();
    ids.sort();
    opened.sort();
    assert!(ids == opened, "each once");
    assert!(shipper.is_shipped());
    assert!(files(&log) < 6, "{} segments left", files(&log));
    log.stop();
}

#[test]
fn a_full_log_refuses_and_still_settles() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut shipper) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let mut tickets = Vec::new();
    let mut refusals = 0;
    while refusals < 50 {
        match open_call(&lane) {
            Ok((_, ticket)) => tickets.push(ticket),
            Err(LogFull) => {
                refusals += 1;
                std::thread::yield_now();
            }
        }
    }
    let opened = tickets.len();
    assert!(opened > 50);
    tickets.into_iter().for_each(|ticket| lane.settle(ticket, &settled()));
    assert_eq!(ship(&mut shipper).len(), opened);
    log.stop();
}

/// The process is gone and another one reads its files, which are copied because this process still holds the lock.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("wal/0")).unwrap();
    for entry in std::fs::read_dir(from.join("wal/0")).unwrap().flatten() {
        std::fs::copy(entry.path(), to.join("wal/0").join(entry.file_name())).unwrap();
    }
}

#[test]
fn what_a_segment_does_not_know_yet_is_shipped_again_as_it_was_and_nothing_becomes_unknown() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let patient = |root: &Path| tenon_usage::LogOptions { mark_after: Duration::from_secs(3600), ..options(root) };
    let (log, mut shipper) = Log::start(patient(dir.path())).unwrap();
    let lane = log.lane();
    let (whole_id, whole) = open_call(&lane).unwrap();
    lane.settle(whole, &settled());
    // A call with records in two segments. The later one is deleted first, because the earlier one holds an open call.
    let (_, long) = open_call(&lane).unwrap();
    let (_, _open) = open_call(&lane).unwrap();
    let (mut long, mut shipped) = (Some(long), 0);
    for round in 0..8 {
        for _ in 0..50 {
            let mut ticket = None;
            wait_for("a segment", || {
                ticket = open_call(&lane).ok();
                ticket.is_some()
            });
            lane.settle(ticket.unwrap().1, &settled());
        }
        if round == 2 {
            lane.settle(long.take().unwrap(), &settled());
        }
        shipped += ship(&mut shipper).len();
    }
    assert_eq!(shipped, 402);
    copy_files(dir.path(), copy.path());
    let (_, mut killed) = Log::start(patient(copy.path())).unwrap();
    let again = ship(&mut killed);
    assert!(again.iter().any(|record| record.record_id == whole_id.0), "it was acknowledged, but its segment does not know yet");
    let unknown = again.iter().filter(|record| record.outcome() == Outcome::Unknown).count();
    assert_eq!(unknown, 1, "only the open call");
    assert!(again.len() < 200, "segments without open calls are gone: {}", again.len());
    // A process that stops in order marks the segments.
    log.stop();
    drop((shipper, lane));
    unlock(log);
    let left = ship(&mut restart(dir.path()).1);
    assert_eq!(left.iter().map(UsageRecord::outcome).collect::<Vec<_>>(), [Outcome::Unknown]);
}

#[test]
fn a_restart_ships_what_was_not_acknowledged_and_settles_open_calls_as_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let (log, mut shipper) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let (_, first) = open_call(&lane).unwrap();
    lane.settle(first, &settled());
    assert_eq!(ship(&mut shipper).len(), 1);
    let (second_id, second) = open_call(&lane).unwrap();
    lane.settle(second, &settled());
    let sent = shipper.next_batch(9).unwrap();
    assert_eq!(records(&sent).len(), 1, "sent, never acknowledged");
    let (third_id, _third) = open_call(&lane).unwrap();
    copy_files(dir.path(), copy.path());
    log.stop();
    for round in 0..2 {
        let (log, mut shipper) = Log::start(options(copy.path())).unwrap();
        let batch = shipper.next_batch(9).unwrap();
        let shipped: Vec<_> = records(&batch).iter().map(|r| (r.record_id.clone(), r.outcome())).collect();
        assert_eq!(shipped.len(), 2, "round {round}");
        assert!(shipped.contains(&(second_id.0.to_vec(), Outcome::Completed)) && shipped.contains(&(third_id.0.to_vec(), Outcome::Unknown)));
        if round == 1 {
            shipper.acknowledge(&batch.id);
            assert!(shipper.is_shipped());
        }
        log.stop();
        drop(shipper);
        unlock(log);
    }
    let (_, mut shipper) = Log::start(options(copy.path())).unwrap();
    assert!(shipper.next_batch(9).is_none(), "acknowledged is acknowledged");
}

#[test]
fn a_running_process_keeps_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (_one, _) = Log::start(options(dir.path())).unwrap();
    let (_two, mut shipper) = Log::start(options(dir.path())).unwrap();
    assert!(dir.path().join("wal/1").is_dir());
    assert!(shipper.next_batch(9).is_none());
}

#[test]
fn a_batch_of_a_broken_connection_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut shipper) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let (_, ticket) = open_call(&lane).unwrap();
    lane.settle(ticket, &settled());
    let first = shipper.next_batch(9).unwrap();
    assert!(shipper.next_batch(9).is_none() && shipper.in_flight() == 1);
    shipper.resend();
    shipper.acknowledge(&first.id);
    let second = shipper.next_batch(9).unwrap();
    assert_eq!(records(&second), records(&first));
    shipper.acknowledge(&second.id);
    assert!(shipper.is_shipped());
    log.stop();
}

#[test]
fn a_torn_record_ends_its_segment_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (log, _) = Log::start(options(dir.path())).unwrap();
        let lane = log.lane();
        let (_, ticket) = open_call(&lane).unwrap();
        lane.settle(ticket, &settled());
        let _open = open_call(&lane).unwrap();
        log.stop();
        drop(lane);
        unlock(log);
    }
    let path = dir.path().join("wal/0/000000000000.wal");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|b| *b != 0).unwrap();
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (_, mut shipper) = Log::start(options(dir.path())).unwrap();
    assert_eq!(ship(&mut shipper).len(), 1);
}
