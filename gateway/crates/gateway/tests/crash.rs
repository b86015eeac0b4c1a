//! kill -9 under load, again and again: every call whose answer arrived whole has exactly one usage record, and it says completed.
//!
//! `TENON_CRASH_KILLS` sets how often (default 20).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use support::{ANSWER, BODY, CHAT, DONE, House, STREAM_BODY, USAGE_FRAME, frame};
use tenon_contract::{Outcome, UsageSource};
use tenon_testkit::{Client, Step, json_answer, wait_for};

const CALLERS: usize = 16;

#[test]
fn no_acknowledged_call_is_lost_or_doubled() {
    let kills: u32 = std::env::var("TENON_CRASH_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let mut house = House::with(|setup| setup.with("TENON_GATEWAY_WAL_SEGMENT_BYTES", 128 << 10));
    house.upstream.say(|asked| {
        let streamed = asked.body.windows(8).any(|w| w == b"\"stream\"");
        if streamed { chunked_stream() } else { vec![Step::Send(json_answer(200, ANSWER))] }
    });
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| {
            let (stop, acknowledged, at, key) = (stop.clone(), acknowledged.clone(), house.gateway.address, house.key.text.clone());
            std::thread::spawn(move || call_until(&stop, &acknowledged, at, &key, n % 2 == 1))
        })
        .collect();
    for kill in 0..kills {
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
        std::thread::sleep(Duration::from_millis(100 + u64::from(nanos / 1000 % 200)));
        // Each third time the control plane is away or does not acknowledge, so that records wait through several lives.
        house.control.acknowledge(kill % 3 != 1);
        house.gateway.kill();
        house.gateway = house.setup.spawn();
    }
    stop.store(true, Ordering::SeqCst);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    house.control.acknowledge(true);
    // A last life, so that what hangs unacknowledged on the running connection ships too.
    house.gateway.kill();
    house.gateway = house.setup.start();
    let acknowledged = acknowledged.lock().unwrap().clone();
    let ids = || house.control.usage().into_iter().map(|r| r.request_id).collect::<HashSet<_>>();
    wait_for("every acknowledged call has its record", || {
        let ids = ids();
        acknowledged.iter().all(|id| ids.contains(id))
    });
    wait_for("all is shipped", || house.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    judge(&house, &acknowledged, kills);
}

fn judge(house: &House, acknowledged: &[String], kills: u32) {
    let mut records: HashMap<String, Vec<_>> = HashMap::new();
    for record in house.control.usage() {
        records.entry(record.request_id.clone()).or_default().push(record);
    }
    for id in acknowledged {
        let [record] = &records[id][..] else { panic!("{id} has {} records", records[id].len()) };
        assert_eq!((record.outcome(), record.usage_source()), (Outcome::Completed, UsageSource::Engine), "{id}");
    }
    let unknown = records.values().flatten().filter(|r| r.outcome() == Outcome::Unknown).count();
    println!(
        "{kills} kills, {} acknowledged calls, {} records, {unknown} unknown, {} shipped again",
        acknowledged.len(),
        records.len(),
        house.control.duplicates()
    );
    assert!(acknowledged.len() > kills as usize * CALLERS, "there was load");
    assert!(records.len() <= house.upstream.count() + CALLERS * kills as usize, "no record without a call");
}

fn chunked_stream() -> Vec<Step> {
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let rest = [chunk(&[USAGE_FRAME, DONE].concat()), b"0\r\n\r\n".to_vec()].concat();
    vec![Step::Send([head, chunk(&frame("a"))].concat()), Step::Send(rest)]
}

/// Calls over one connection after another, and notes the id of each answer that arrived whole.
fn call_until(stop: &AtomicBool, acknowledged: &Mutex<Vec<String>>, at: SocketAddr, key: &str, streamed: bool) {
    let body = if streamed { STREAM_BODY } else { BODY };
    let raw = format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut client) = Client::connect(at) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        while !stop.load(Ordering::SeqCst) && client.write(raw.as_bytes()).is_ok() {
            let Ok(mut answer) = client.try_head() else { break };
            client.read_body(&mut answer);
            let whole = answer.complete && answer.status == 200 && (!streamed || answer.text().ends_with("[DONE]\n\n"));
            if !whole {
                break;
            }
            acknowledged.lock().unwrap().push(answer.request_id());
        }
    }
}
