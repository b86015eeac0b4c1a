//! The log: what is opened ships exactly once, through full disks and restarts.
#![allow(clippy::unwrap_used)]

mod support;

use support::{files, open_call, options, records, settled, ship, unlock};
use tenon_usage::{Full, Log, Operation, Outcome, UsageSource};

#[test]
fn a_record_arrives_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut queue) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let (id, ticket) = open_call(&lane).unwrap();
    assert!(queue.next_batch(9).is_none(), "only ended calls ship");
    lane.settle(ticket, &settled());
    let records = ship(&mut queue);
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
    let (log, mut queue) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let (held_id, held) = open_call(&lane).unwrap(); // a long stream, open over many segments
    let mut shipped = Vec::new();
    let mut made = Vec::new();
    for _ in 0..2000 {
        let (id, ticket) = loop {
            match open_call(&lane) {
                Ok(call) => break call,
                Err(Full) => {
                    shipped.extend(ship(&mut queue));
                    std::thread::yield_now();
                }
            }
        };
        lane.settle(ticket, &settled());
        made.push(id.0.to_vec());
    }
    lane.settle(held, &settled());
    made.push(held_id.0.to_vec());
    shipped.extend(ship(&mut queue));
    let mut ids: Vec<_> = shipped.into_iter().map(|r| r.record_id).collect();
    ids.sort();
    made.sort();
    assert!(ids == made, "each once");
    assert!(queue.is_shipped());
    assert!(files(&log) < 6, "{} segments left", files(&log));
    log.stop();
}

#[test]
fn a_full_log_refuses_and_still_settles() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut queue) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let mut tickets = Vec::new();
    let mut patience = 0;
    while patience < 50 {
        match open_call(&lane) {
            Ok((_, ticket)) => tickets.push(ticket),
            Err(Full) => {
                patience += 1;
                std::thread::yield_now();
            }
        }
    }
    let opened = tickets.len();
    assert!(opened > 50);
    tickets.into_iter().for_each(|ticket| lane.settle(ticket, &settled()));
    assert_eq!(ship(&mut queue).len(), opened);
    log.stop();
}

#[test]
fn a_restart_ships_what_was_not_acknowledged_and_settles_open_calls_as_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let (log, mut queue) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let (_, first) = open_call(&lane).unwrap();
    lane.settle(first, &settled());
    assert_eq!(ship(&mut queue).len(), 1);
    let (second_id, second) = open_call(&lane).unwrap();
    lane.settle(second, &settled());
    let sent = queue.next_batch(9).unwrap();
    assert_eq!(records(&sent).len(), 1, "sent, never acknowledged");
    let (third_id, _third) = open_call(&lane).unwrap();
    // The process is gone: another one finds its files (copied, because this process still holds the lock).
    std::fs::create_dir_all(copy.path().join("wal/0")).unwrap();
    for entry in std::fs::read_dir(dir.path().join("wal/0")).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.path().join("wal/0").join(entry.file_name())).unwrap();
    }
    log.stop();
    for round in 0..2 {
        let (log, mut queue) = Log::start(options(copy.path())).unwrap();
        let batch = queue.next_batch(9).unwrap();
        let found: Vec<_> = records(&batch).iter().map(|r| (r.record_id.clone(), r.outcome())).collect();
        assert_eq!(found.len(), 2, "round {round}");
        assert!(found.contains(&(second_id.0.to_vec(), Outcome::Completed)) && found.contains(&(third_id.0.to_vec(), Outcome::Unknown)));
        if round == 1 {
            queue.acknowledge(&batch.id);
            assert!(queue.is_shipped());
        }
        log.stop();
        drop(queue);
        unlock(log);
    }
    let (_, mut queue) = Log::start(options(copy.path())).unwrap();
    assert!(queue.next_batch(9).is_none(), "acknowledged is acknowledged");
}

#[test]
fn a_running_process_keeps_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (_one, _) = Log::start(options(dir.path())).unwrap();
    let (_two, mut queue) = Log::start(options(dir.path())).unwrap();
    assert!(dir.path().join("wal/1").is_dir());
    assert!(queue.next_batch(9).is_none());
}

#[test]
fn what_breaks_off_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut queue) = Log::start(options(dir.path())).unwrap();
    let lane = log.lane();
    let (_, ticket) = open_call(&lane).unwrap();
    lane.settle(ticket, &settled());
    let first = queue.next_batch(9).unwrap();
    assert!(queue.next_batch(9).is_none() && queue.in_flight() == 1);
    queue.resend();
    queue.acknowledge(&first.id);
    let second = queue.next_batch(9).unwrap();
    assert_eq!(records(&second), records(&first));
    queue.acknowledge(&second.id);
    assert!(queue.is_shipped());
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
    let (_, mut queue) = Log::start(options(dir.path())).unwrap();
    assert_eq!(ship(&mut queue).len(), 1);
}
