//! Admission, settlement and the exchange with the control plane, with the time passed in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http::HeaderMap;
use std::sync::Arc;
use tenon_contract as wire;
use tenon_contract::{BudgetMode, Governance, Subject};
use tenon_limits::{
    AdmissionRequest, ApplicableRules, Consumption, Denied, LeaseExchange, LimitKind, LimitRegistry, Output, Owner, Reservation, TenantRules, Tokens,
};

const SECOND: u64 = 1_000_000;
const OWNER: Owner<'static> = Owner { project_id: "p", key_id: "k", principal_id: "w" };

fn limit(id: &str, subject: Subject, subject_id: &str, requests: u64, tokens: u64, concurrency: u32) -> wire::Limit {
    wire::Limit {
        limit_id: id.into(),
        subject: subject as i32,
        subject_id: subject_id.into(),
        requests_per_minute: requests,
        tokens_per_minute: tokens,
        concurrency,
        also_keys: vec![],
    }
}

fn budget() -> wire::Budget {
    wire::Budget {
        budget_id: "b".into(),
        subject: Subject::Tenant as i32,
        subject_id: "t".into(),
        mode: BudgetMode::Hard as i32,
        currency: "EUR".into(),
        also_keys: vec![],
    }
}

/// One nano a token, in and out.
fn price() -> wire::Price {
    wire::Price {
        price_id: "price-1".into(),
        model: "m".into(),
        currency: "EUR".into(),
        input_nano_per_million: 1_000_000,
        output_nano_per_million: 1_000_000,
        ..wire::Price::default()
    }
}

struct Fixture {
    registry: Arc<LimitRegistry>,
    exchange: LeaseExchange,
    applies: ApplicableRules,
}

impl Fixture {
    fn new(table: &Governance, model: &wire::Model) -> Self {
        let registry = Arc::new(LimitRegistry::default());
        let rules = TenantRules::compile(table, &registry);
        let applies = ApplicableRules { key: rules.of_key(&OWNER), model: rules.of_model(model) };
        Self { exchange: LeaseExchange::new(registry.clone(), "process".into()), registry, applies }
    }

    fn limited(limits: Vec<wire::Limit>) -> Self {
        Self::new(&Governance { tenant_id: "t".into(), limits, ..Governance::default() }, &model(0, 0))
    }

    fn budgeted(context: u32, output: u32) -> Self {
        let table = Governance { tenant_id: "t".into(), budgets: vec![budget()], prices: vec![price()], ..Governance::default() };
        Self::new(&table, &model(context, output))
    }

    fn share_whole(&mut self, now_us: u64) {
        let shares = self.registry.limits();
        let share = |limit: &Arc<tenon_limits::Limit>| wire::Share {
            limit_id: limit.id.to_string(),
            requests_per_minute: limit.of_fleet(LimitKind::Requests),
            tokens_per_minute: limit.of_fleet(LimitKind::Tokens),
            concurrency: u32::try_from(limit.of_fleet(LimitKind::Concurrency)).unwrap(),
            valid_ms: 5000,
        };
        let shares = shares.iter().map(share).collect();
        self.exchange.apply_response(&wire::LeaseResponse { shares, ..Default::default() }, now_us);
    }

    fn lease(&mut self, id: &str, amount_nano: i64, valid_ms: u32, now_us: u64) {
        let lease = wire::Lease { lease_id: id.into(), budget_id: "b".into(), amount_nano, valid_ms };
        self.exchange.next_request(now_us);
        self.exchange.apply_response(&wire::LeaseResponse { leases: vec![lease], number: 1, ..Default::default() }, now_us);
    }

    fn left(&self, now_us: u64) -> i64 {
        self.registry.find_budget("b").unwrap().left(now_us)
    }

    fn admit(&self, request: AdmissionRequest) -> Result<Reservation, Denied> {
        self.applies.admit(&self.registry, &request)
    }
}

fn model(context_tokens: u32, output_tokens_max: u32) -> wire::Model {
    wire::Model { name: "m".into(), context_tokens, output_tokens_max, ..wire::Model::default() }
}

fn request(now_us: u64, output: Output) -> AdmissionRequest {
    AdmissionRequest { now_us, unix_ms: 0, body_bytes: 400, output, choices: 1, images: 0, is_text: true, is_endless: false, has_waited: false }
}

fn exceeded(result: Result<Reservation, Denied>) -> (LimitKind, u64, u64) {
    match result {
        Err(Denied::Exceeded(exceeded)) => (exceeded.kind, exceeded.remaining, exceeded.retry_after_us),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rules_apply_by_tenant_project_key_principal_and_model() {
    let registry = Arc::new(LimitRegistry::default());
    let mut of_key = limit("k", Subject::Key, "k", 1, 0, 0);
    of_key.also_keys = vec!["successor".into()];
    let limits = vec![limit("p", Subject::Project, "p", 1, 0, 0), of_key, limit("m", Subject::Model, "m", 1, 0, 0)];
    let rules = TenantRules::compile(&Governance { limits, ..Governance::default() }, &registry);
    let policy = |owner: Owner<'_>| rules.of_key(&owner).map(|rules| rules.policy().unwrap().to_str().unwrap().to_owned());
    assert_eq!(policy(OWNER).unwrap(), r#""key-requests";q=1;w=60, "project-requests";q=1;w=60"#);
    assert_eq!(policy(Owner { key_id: "successor", project_id: "other", ..OWNER }).unwrap(), r#""key-requests";q=1;w=60"#);
    assert_eq!(policy(Owner { key_id: "other", project_id: "other", ..OWNER }), None, "without rules there is nothing to do");
    assert!(rules.of_model(&model(0, 0)).is_some() && rules.of_model(&wire::Model::default()).is_none());
}

#[test]
fn counters_outlive_a_replaced_table() {
    let fixture = Fixture::limited(vec![limit("l", Subject::Tenant, "t", 8, 0, 0)]);
    let _grants = [fixture.admit(request(0, Output::None)).unwrap(), fixture.admit(request(0, Output::None)).unwrap()];
    let table = Governance { limits: vec![limit("l", Subject::Tenant, "t", 12, 0, 0)], ..Governance::default() };
    let rules = TenantRules::compile(&table, &fixture.registry);
    let applies = ApplicableRules { key: rules.of_key(&OWNER), model: None };
    let _third = applies.admit(&fixture.registry, &request(0, Output::None)).unwrap();
    let (kind, remaining, _) = exceeded(applies.admit(&fixture.registry, &request(0, Output::None)));
    assert_eq!((kind, remaining), (LimitKind::Requests, 0), "without a share a quarter of twelve is three, and two were used before");
}

#[test]
fn a_refused_or_unopened_call_gives_everything_back() {
    let mut fixture = Fixture::limited(vec![limit("l", Subject::Tenant, "t", 2, 1000, 1)]);
    fixture.share_whole(0);
    let held = fixture.admit(request(0, Output::Capped(100))).unwrap();
    assert_eq!(exceeded(fixture.admit(request(0, Output::Capped(100)))).0, LimitKind::Concurrency);
    drop(held);
    let limit = fixture.registry.find_limit("l").unwrap();
    assert_eq!([LimitKind::Requests, LimitKind::Tokens, LimitKind::Concurrency].map(|kind| limit.remaining(kind, 0)), [2, 1000, 1]);
    let mut opened = fixture.admit(request(0, Output::Capped(100))).unwrap();
    opened.open();
    drop(opened);
    assert_eq!(
        [LimitKind::Requests, LimitKind::Tokens, LimitKind::Concurrency].map(|kind| limit.remaining(kind, 0)),
        [1, 800, 1],
        "its end is unknown"
    );
}

#[test]
fn tokens_reserve_an_estimate_and_are_corrected() {
    let mut fixture = Fixture::limited(vec![limit("l", Subject::Tenant, "t", 0, 1000, 0)]);
    fixture.share_whole(0);
    let mut reservation = fixture.admit(request(0, Output::Capped(300))).unwrap();
    reservation.open();
    let left = || fixture.registry.find_limit("l").unwrap().remaining(LimitKind::Tokens, SECOND);
    assert_eq!(left(), 600);
    reservation.settle(&Consumption::Used(Tokens { input: 90, output: 10, ..Tokens::default() }), SECOND);
    assert_eq!(left(), 900);
    let mut larger = fixture.admit(request(SECOND, Output::Capped(100))).unwrap();
    larger.open();
    larger.settle(&Consumption::Used(Tokens { input: 90, output: 860, ..Tokens::default() }), SECOND);
    let (kind, remaining, wait) = exceeded(fixture.admit(request(SECOND, Output::Capped(100))));
    assert_eq!((kind, remaining), (LimitKind::Tokens, 0), "more was used than was left, so the excess counts");
    assert!(fixture.admit(request(SECOND + wait, Output::Capped(100))).is_ok(), "the reported wait is right");
    let _whole = fixture.admit(request(200 * SECOND, Output::Capped(9000))).expect("larger than the limit: it takes the whole of it");
    assert_eq!(exceeded(fixture.admit(request(200 * SECOND, Output::Capped(1)))).0, LimitKind::Tokens);
}

#[test]
fn headers_contain_policy_remainder_and_openais_names() {
    let mut fixture = Fixture::limited(vec![limit("l", Subject::Tenant, "t", 60, 1000, 4)]);
    fixture.share_whole(0);
    let mut reservation = fixture.admit(request(0, Output::Capped(100))).unwrap();
    reservation.open();
    let mut headers = HeaderMap::new();
    fixture.applies.add_headers(&mut headers, 0, true);
    let value = |name: &str| headers[name].to_str().unwrap();
    let policy = r#""tenant-requests";q=60;w=60, "tenant-tokens";q=1000;qu="tokens";w=60, "tenant-concurrency";q=4;qu="concurrent-requests""#;
    assert_eq!(value("ratelimit-policy"), policy);
    assert_eq!(value("ratelimit"), r#""tenant-requests";r=59;t=62, "tenant-tokens";r=800;t=62, "tenant-concurrency";r=3"#);
    assert_eq!(
        [value("x-ratelimit-limit-requests"), value("x-ratelimit-remaining-requests"), value("x-ratelimit-reset-requests")],
        ["60", "59", "1m2s"]
    );
    assert_eq!([value("x-ratelimit-limit-tokens"), value("x-ratelimit-remaining-tokens")], ["1000", "800"]);
}

#[test]
fn a_hard_budget_reserves_an_upper_bound_and_settles_at_the_real_cost() {
    let mut fixture = Fixture::budgeted(0, 0);
    assert!(matches!(fixture.admit(request(0, Output::Capped(100))), Err(Denied::Short { nano: 1524, .. })), "without a lease there is no call");
    fixture.lease("l1", 2000, 60_000, 0);
    let mut reservation = fixture.admit(request(0, Output::Capped(100))).unwrap();
    assert_eq!((reservation.cap(), reservation.price_id(), reservation.lease_parts()[0].nano, fixture.left(0)), (None, "price-1", 1524, 476));
    reservation.open();
    reservation.settle(&Consumption::Used(Tokens { input: 100, output: 50, ..Tokens::default() }), 0);
    assert_eq!(fixture.left(0), 1850);
    let mut lost = fixture.admit(request(0, Output::Capped(100))).unwrap();
    lost.open();
    drop(lost);
    assert_eq!(fixture.left(0), 326, "an unknown end is charged as reserved");
    drop(fixture.admit(AdmissionRequest { body_bytes: 0, ..request(0, Output::Capped(0)) }).map(|_| ()).unwrap_err());
    assert_eq!(fixture.left(0), 326);
}

#[test]
fn an_open_output_is_capped_at_what_the_lease_can_pay() {
    let mut fixture = Fixture::budgeted(0, 0);
    fixture.lease("l1", 1424 + 2000, 60_000, 0);
    let reservation = fixture.admit(AdmissionRequest { choices: 2, ..request(0, Output::Open) }).map(|reservation| reservation.cap());
    assert!(matches!(reservation, Err(Denied::Short { .. })), "with 2000 tokens for two it is worth waiting for more");
    let reservation = fixture.admit(AdmissionRequest { choices: 2, has_waited: true, ..request(0, Output::Open) }).unwrap();
    assert_eq!(reservation.cap(), Some(1000));
    drop(reservation);
    fixture.lease("l2", 100_000, 60_000, 0);
    assert_eq!(fixture.admit(request(0, Output::Open)).unwrap().cap(), Some(4096));
    assert_eq!(fixture.admit(request(0, Output::Default(16))).unwrap().cap(), Some(16));
    assert_eq!(fixture.admit(request(0, Output::Capped(5))).unwrap().cap(), None, "the caller's own cap is kept");
}

#[test]
fn what_cannot_be_bounded_or_priced_is_refused() {
    let mut fixture = Fixture::budgeted(0, 0);
    fixture.lease("l1", 1_000_000, 60_000, 0);
    let media = AdmissionRequest { is_text: false, ..request(0, Output::Capped(10)) };
    assert!(matches!(fixture.admit(media), Err(Denied::Unbounded)));
    assert!(matches!(fixture.admit(request(0, Output::Unbounded)), Err(Denied::Unbounded)));
    let mut declared = Fixture::budgeted(8000, 100);
    declared.lease("l1", 1_000_000, 60_000, 0);
    assert_eq!(declared.admit(media).unwrap().lease_parts()[0].nano, 8010);
    assert!(matches!(declared.admit(AdmissionRequest { is_endless: true, ..media }), Err(Denied::Unbounded)), "a session is more than one response");
    let unpriced = Governance { budgets: vec![budget()], prices: vec![wire::Price { currency: "USD".into(), ..price() }], ..Governance::default() };
    assert!(matches!(Fixture::new(&unpriced, &model(0, 0)).admit(request(0, Output::Capped(10))), Err(Denied::NotPriced)));
    let later = Governance { budgets: vec![budget()], prices: vec![wire::Price { effective_from_unix_ms: 1, ..price() }], ..Governance::default() };
    assert!(matches!(Fixture::new(&later, &model(0, 0)).admit(request(0, Output::Capped(10))), Err(Denied::NotPriced)));
}

#[test]
fn a_lease_ends_before_the_control_planes_deadline_whatever_the_wall_clock_says() {
    let mut fixture = Fixture::budgeted(0, 0);
    fixture.lease("l1", 10_000, 60_000, 5 * SECOND);
    // `unix_ms` jumps by a day in both directions: only the price depends on it.
    for unix_ms in [0, 86_400_000] {
        assert!(fixture.admit(AdmissionRequest { unix_ms, ..request(58 * SECOND, Output::Capped(10)) }).is_ok());
        assert!(
            matches!(fixture.admit(AdmissionRequest { unix_ms, ..request(59 * SECOND, Output::Capped(10)) }), Err(Denied::Short { .. })),
            "54 s after it was sent for"
        );
    }
    let request = fixture.exchange.next_request(60 * SECOND);
    assert_eq!((request.reports[0].close, request.reports[0].spent_nano), (true, 0), "what was not spent is returned");
}

#[test]
fn closed_leases_and_shipped_logs_are_reported_until_a_response_confirms_them() {
    let mut fixture = Fixture::budgeted(0, 0);
    fixture.lease("l1", 10_000, 60_000, 0);
    fixture.exchange.add_shipped_process("earlier".into());
    let report = |fixture: &mut Fixture, now| {
        let request = fixture.exchange.next_request(now);
        (request.reports.iter().any(|report| report.close), request.shipped_process_ids.len(), request.applied_number)
    };
    assert_eq!(report(&mut fixture, 60 * SECOND), (true, 1, 1));
    assert_eq!(fixture.exchange.apply_response(&wire::LeaseResponse { number: 1, ..Default::default() }, 60 * SECOND), Vec::<String>::new());
    assert_eq!(report(&mut fixture, 61 * SECOND), (true, 1, 1));
    fixture.exchange.start_connection();
    assert_eq!(report(&mut fixture, 62 * SECOND), (true, 1, 0), "again on a new connection");
    assert_eq!(fixture.exchange.apply_response(&wire::LeaseResponse { number: 1, ..Default::default() }, 62 * SECOND), ["earlier"]);
    assert_eq!(report(&mut fixture, 63 * SECOND), (false, 0, 1));
}

#[test]
fn a_lease_is_requested_once_until_a_response_and_a_denial_ends_the_wait() {
    let mut fixture = Fixture::budgeted(0, 0);
    let budget = fixture.registry.find_budget("b").unwrap();
    budget.request_lease(1524);
    let request = fixture.exchange.next_request(0);
    assert_eq!((request.wants.len(), request.wants[0].amount_nano), (1, 1524));
    budget.request_lease(10);
    assert!(fixture.exchange.next_request(SECOND).wants.is_empty());
    let denied = wire::LeaseDenied { budget_id: "b".into(), remaining_nano: 3, retry_after_ms: 5000 };
    fixture.exchange.apply_response(&wire::LeaseResponse { denied: vec![denied], number: 1, ..Default::default() }, SECOND);
    assert!(budget.is_denied(5 * SECOND) && !budget.is_denied(6 * SECOND));
}

#[test]
fn more_than_the_reservation_is_an_overdraft() {
    let mut fixture = Fixture::budgeted(0, 0);
    fixture.lease("l1", 1600, 60_000, 0);
    let mut reservation = fixture.admit(request(0, Output::Capped(100))).unwrap();
    reservation.open();
    assert_eq!(reservation.compute_cost(&Consumption::Used(Tokens { input: 5000, ..Tokens::default() })), [5000]);
    reservation.settle(&Consumption::Used(Tokens { input: 5000, ..Tokens::default() }), 0);
    let stats = &fixture.registry.stats;
    use std::sync::atomic::Ordering::Relaxed;
    assert_eq!((stats.overdrafts.load(Relaxed), stats.overdraft_nano.load(Relaxed), fixture.left(0)), (1, 5000 - 1524, 0));
    assert!(fixture.admit(AdmissionRequest { body_bytes: 0, ..request(0, Output::Capped(0)) }).is_err(), "nothing more can be reserved");
}

#[test]
fn a_lease_that_is_granted_while_closing_is_returned_too() {
    let mut fixture = Fixture::budgeted(0, 10);
    fixture.lease("first", 1_000, 60_000, 0);
    fixture.registry.find_budget("b").unwrap().request_lease(500);
    let sent = fixture.exchange.next_request(SECOND);
    assert_eq!(sent.wants.len(), 1);
    let closes = |request: &wire::LeaseRequest| -> Vec<String> {
        request.reports.iter().filter(|report| report.close).map(|report| report.lease_id.clone()).collect()
    };
    fixture.registry.find_budget("b").unwrap().request_lease(900);
    let last = fixture.exchange.closing_request(4 * SECOND).unwrap(); // late enough to request again
    assert_eq!((closes(&last), last.wants.len()), (vec!["first".to_owned()], 0), "a closing process requests nothing");
    let late = wire::Lease { lease_id: "late".into(), budget_id: "b".into(), amount_nano: 500, valid_ms: 60_000 };
    fixture.exchange.apply_response(&wire::LeaseResponse { leases: vec![late], number: 2, ..Default::default() }, SECOND);
    fixture.exchange.apply_response(&wire::LeaseResponse { number: 3, ..Default::default() }, SECOND);
    assert_eq!(closes(&fixture.exchange.closing_request(SECOND).unwrap()), ["late"]);
    fixture.exchange.apply_response(&wire::LeaseResponse { number: 4, ..Default::default() }, SECOND);
    assert!(fixture.exchange.closing_request(SECOND).is_none());
}

#[test]
fn a_response_within_a_session_takes_requests_and_tokens_but_no_concurrency() {
    let mut fixture = Fixture::limited(vec![limit("k", Subject::Key, "k", 3, 1000, 1), limit("t", Subject::Tenant, "t", 2, 0, 0)]);
    fixture.share_whole(0);
    let mut session = fixture.admit(request(0, Output::Unbounded)).unwrap();
    session.open();
    session.give_back_tokens(0);
    session.give_back_requests();
    let left = |kind, id| fixture.registry.find_limit(id).unwrap().remaining(kind, 0);
    assert_eq!((left(LimitKind::Requests, "k"), left(LimitKind::Tokens, "k"), left(LimitKind::Concurrency, "k")), (3, 1000, 0));
    let turn = |output| fixture.applies.admit_turn(&fixture.registry, &request(0, Output::Capped(output)));
    let mut first = turn(300).unwrap();
    first.open();
    assert_eq!(
        (left(LimitKind::Requests, "k"), left(LimitKind::Tokens, "k"), left(LimitKind::Concurrency, "k")),
        (2, 600, 0),
        "in addition to the session"
    );
    first.settle(&Consumption::Used(Tokens { input: 30, output: 20, ..Tokens::default() }), 0);
    drop(first);
    assert_eq!((left(LimitKind::Tokens, "k"), left(LimitKind::Concurrency, "k")), (950, 0), "its end does not free the session's concurrency");
    assert_eq!(exceeded(turn(900)).0, LimitKind::Tokens);
    let mut second = turn(10).unwrap();
    second.open();
    assert_eq!(exceeded(turn(10)).0, LimitKind::Requests);
    assert_eq!((left(LimitKind::Requests, "k"), left(LimitKind::Requests, "t")), (1, 0), "a refusal gives back what other limits had counted");
    fixture.applies.count(2, 5000, 0);
    assert_eq!((left(LimitKind::Requests, "k"), left(LimitKind::Tokens, "k")), (0, 0), "what was used stays counted");
    drop((second, session));
    assert_eq!(left(LimitKind::Concurrency, "k"), 1);
}

#[test]
fn a_response_within_a_session_is_refused_under_a_hard_budget_that_came_later() {
    let fixture = Fixture::budgeted(0, 0);
    let endless = AdmissionRequest { is_endless: true, is_text: false, ..request(0, Output::Unbounded) };
    assert!(matches!(fixture.applies.admit_turn(&fixture.registry, &endless), Err(Denied::Unbounded)));
}
