//! One gateway; for each case an upstream behind its own trouble, alone and beside a healthy one.

use crate::cases::{Case, Road, good, steps};
use crate::support::{TENANT, endpoint, setup, table};
use std::mem::ManuallyDrop;
use std::time::Duration;
use tenon_contract::{Endpoint, Model, Route};
use tenon_testkit::{Control, FaultProxy, Gateway, Setup, TestKey, Unaccepting, Upstream};

pub struct World {
    pub control: Control,
    pub healthy: Upstream,
    /// Each case's own: for whole answers and for streams.
    pub spoiled: Vec<[Upstream; 2]>,
    pub key: TestKey,
    pub gateway: Gateway,
    _setup: Setup,
}

pub fn model_name(case: usize, streamed: bool, with_another: bool) -> String {
    format!("c{case}.{}.{}", u8::from(streamed), u8::from(with_another))
}

fn endpoint_id(case: usize, streamed: bool) -> String {
    format!("spoiled-{case}-{}", u8::from(streamed))
}

fn address(case: &Case, streamed: bool, upstream: &Upstream) -> std::net::SocketAddr {
    match case.road {
        Road::Refused => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        Road::Unaccepting => ManuallyDrop::new(Unaccepting::start()).address,
        Road::AcceptsLate => {
            let late = Unaccepting::start();
            let address = late.address;
            late.accept_after(Duration::from_millis(300), upstream.address);
            address
        }
        Road::Through(fault) => FaultProxy::start(upstream.address, fault).address,
        Road::At(fault, place) => FaultProxy::start(upstream.address, fault(place.of(&good(streamed)))).address,
    }
}

fn spoiled_endpoint(index: usize, case: &Case, streamed: bool, upstream: &Upstream) -> Endpoint {
    let mut made = endpoint(&endpoint_id(index, streamed), &format!("http://{}/v1", address(case, streamed, upstream)));
    // The system tries again to connect after a second.
    let late = matches!(case.road, Road::AcceptsLate);
    made.connect_timeout_ms = if late { 5000 } else { 500 };
    (made.headers_timeout_ms, made.first_token_timeout_ms, made.idle_timeout_ms) = (1500, 1500, 1500);
    made.total_timeout_ms = if late { 9000 } else { 4000 };
    made
}

/// The spoiled endpoint first, whatever decides: by tier, and by weight where there are none.
fn models(case: usize, streamed: bool) -> [Model; 2] {
    let spoiled = Route { endpoint_id: endpoint_id(case, streamed), weight: 1_000_000_000, ..Route::default() };
    let healthy = Route { endpoint_id: "healthy".into(), weight: 1, tier: 1, ..Route::default() };
    [(false, vec![spoiled.clone()]), (true, vec![spoiled, healthy])].map(|(another, routes)| Model {
        name: model_name(case, streamed, another),
        routes,
        retries_max: if another { 2 } else { 0 },
        ..Model::default()
    })
}

impl World {
    pub fn new(cases: &[Case]) -> Self {
        let control = Control::start();
        let serve = |answer: fn(bool) -> Vec<u8>, streamed: bool| Upstream::start(move |_| steps(answer(streamed)));
        let spoiled: Vec<_> = cases.iter().map(|case| [false, true].map(|streamed| serve(case.answer, streamed))).collect();
        let healthy = Upstream::start(|asked| steps(good(asked.json()["stream"] == true)));
        let both = || cases.iter().enumerate().flat_map(|(index, case)| [(index, case, false), (index, case, true)]);
        let mut endpoints: Vec<_> =
            both().map(|(index, case, streamed)| spoiled_endpoint(index, case, streamed, &spoiled[index][usize::from(streamed)])).collect();
        endpoints.push(endpoint("healthy", &healthy.url()));
        control.put_routing(table(endpoints, both().flat_map(|(index, _, streamed)| models(index, streamed)).collect()));
        let key = TestKey::new("faultfaul1", TENANT);
        control.put_key(key.record.clone());
        let setup = setup(&control);
        let gateway = setup.start();
        Self { control, healthy, spoiled, key, gateway, _setup: setup }
    }

    /// How often each side was asked for this request.
    pub fn asked(&self, case: usize, streamed: bool, id: &str) -> (usize, usize) {
        let of = |upstream: &Upstream| upstream.asked.lock().unwrap().iter().filter(|asked| asked.header("x-request-id") == Some(id)).count();
        (of(&self.spoiled[case][usize::from(streamed)]), of(&self.healthy))
    }
}
