//! One gateway, and for each case an upstream with its fault, alone and beside a healthy one.

use crate::cases::{Case, Link, good, steps};
use crate::support::{TENANT, endpoint, setup, table};
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::Mutex;
use std::time::Duration;
use tenon_contract::{Endpoint, Model, Route};
use tenon_testkit::{Control, FaultProxy, Gateway, Setup, TestKey, Unaccepting, Upstream};

pub struct Stack {
    pub control: Control,
    pub healthy: Upstream,
    /// For each case, one for whole answers and one for streams.
    pub faulty: Vec<[Upstream; 2]>,
    pub key: TestKey,
    pub gateway: Gateway,
    /// Listeners that begin to accept after the first call of their case.
    late: Late,
    _setup: Setup,
}

/// By case and whether it is streamed.
type Late = Mutex<HashMap<(usize, bool), Unaccepting>>;

pub fn model_name(case: usize, streamed: bool, with_another: bool) -> String {
    format!("c{case}.{}.{}", u8::from(streamed), u8::from(with_another))
}

fn endpoint_id(case: usize, streamed: bool) -> String {
    format!("faulty-{case}-{}", u8::from(streamed))
}

fn address(index: usize, case: &Case, streamed: bool, upstream: &Upstream, late: &Late) -> std::net::SocketAddr {
    match case.link {
        Link::Refused => tenon_testkit::unused_address(),
        Link::Unaccepting => ManuallyDrop::new(Unaccepting::start()).address,
        Link::AcceptsLate => {
            let listener = Unaccepting::start();
            let address = listener.address;
            late.lock().unwrap().insert((index, streamed), listener);
            address
        }
        Link::Through(fault) => FaultProxy::start(upstream.address, fault).address,
        Link::At(fault, position) => FaultProxy::start(upstream.address, fault(position.of(&good(streamed)))).address,
    }
}

fn faulty_endpoint(index: usize, case: &Case, streamed: bool, upstream: &Upstream, late: &Late) -> Endpoint {
    let mut faulty = endpoint(&endpoint_id(index, streamed), &format!("http://{}/v1", address(index, case, streamed, upstream, late)));
    // The system sends the next SYN after a second.
    let is_late = matches!(case.link, Link::AcceptsLate);
    faulty.connect_timeout_ms = if is_late { 8000 } else { 1000 };
    (faulty.headers_timeout_ms, faulty.first_token_timeout_ms, faulty.idle_timeout_ms) = (3000, 3000, 3000);
    faulty.total_timeout_ms = if is_late { 15_000 } else { 12_000 };
    faulty
}

/// The faulty endpoint comes first, by tier and by weight.
fn models(case: usize, streamed: bool) -> [Model; 2] {
    let faulty = Route { endpoint_id: endpoint_id(case, streamed), weight: 1_000_000_000, ..Route::default() };
    let healthy = Route { endpoint_id: "healthy".into(), weight: 1, tier: 1, ..Route::default() };
    [(false, vec![faulty.clone()]), (true, vec![faulty, healthy])].map(|(another, routes)| Model {
        name: model_name(case, streamed, another),
        routes,
        retries_max: if another { 2 } else { 0 },
        ..Model::default()
    })
}

impl Stack {
    pub fn new(cases: &[Case]) -> Self {
        let control = Control::start();
        let serve = |answer: fn(bool) -> Vec<u8>, streamed: bool| Upstream::start(move |_| steps(answer(streamed)));
        let faulty: Vec<_> = cases.iter().map(|case| [false, true].map(|streamed| serve(case.answer, streamed))).collect();
        let healthy = Upstream::start(|request| steps(good(request.json()["stream"] == true)));
        let both = || cases.iter().enumerate().flat_map(|(index, case)| [(index, case, false), (index, case, true)]);
        let late = Late::default();
        let mut endpoints: Vec<_> =
            both().map(|(index, case, streamed)| faulty_endpoint(index, case, streamed, &faulty[index][usize::from(streamed)], &late)).collect();
        endpoints.push(endpoint("healthy", &healthy.url()));
        control.put_routing(table(endpoints, both().flat_map(|(index, _, streamed)| models(index, streamed)).collect()));
        let key = TestKey::new("faultfaul1", TENANT);
        control.put_key(key.record.clone());
        let setup = setup(&control);
        let gateway = setup.start();
        Self { control, healthy, faulty, key, gateway, late, _setup: setup }
    }

    /// A call of this case begins: a listener that accepts late starts its delay.
    pub fn begin(&self, case: usize, streamed: bool) {
        if let Some(listener) = self.late.lock().unwrap().remove(&(case, streamed)) {
            listener.accept_after(Duration::from_millis(300), self.faulty[case][usize::from(streamed)].address);
        }
    }

    /// How often each side received this request.
    pub fn received(&self, case: usize, streamed: bool, id: &str) -> (usize, usize) {
        let of = |upstream: &Upstream| upstream.requests.lock().unwrap().iter().filter(|request| request.header("x-request-id") == Some(id)).count();
        (of(&self.faulty[case][usize::from(streamed)]), of(&self.healthy))
    }
}
