//! `tenon-gateway check` and `diff`: is everything a start needs there and usable, and what would it change. Nothing is started, bound or
//! written.

use crate::config::{Config, Settings};
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tenon_proxy::TlsListener;
use tenon_snapshot::{LastKnownGood, SealingKey, Shared as Snapshots, Store};
use tenon_upstream::trust_store::TrustStore;

/// What was found, a sentence each.
#[derive(Default)]
pub struct Findings {
    wrong: Vec<String>,
    notes: Vec<String>,
}

impl Findings {
    fn see<T, E: Display>(&mut self, what: &str, found: Result<T, E>) -> Option<T> {
        found.inspect_err(|error| self.wrong.push(format!("{what}: {error}"))).ok()
    }

    pub fn is_well(&self) -> bool {
        self.wrong.is_empty()
    }

    pub fn text(&self) -> String {
        let wrong = self.wrong.iter().map(|sentence| format!("wrong  {sentence}\n"));
        let notes = self.notes.iter().map(|sentence| format!("note   {sentence}\n"));
        let end = if self.is_well() { "well   a gateway with this environment starts\n".to_owned() } else { String::new() };
        wrong.chain(notes).chain([end]).collect()
    }
}

pub fn check(config: &Config) -> Findings {
    let mut found = Findings::default();
    if config.token.is_empty() {
        found.wrong.push("TENON_GATEWAY_TOKEN_FILE: it is empty".into());
    }
    found.see("TENON_GATEWAY_CONTROL_URL", config.peer().check());
    found.see("TENON_GATEWAY_UPSTREAM_CA_FILE", TrustStore::open(config.upstream_authorities.clone()));
    if let Some(files) = &config.tls {
        private(&mut found, "TENON_GATEWAY_TLS_KEY_FILE", &files.key);
        found.see("TENON_GATEWAY_TLS_CERT_FILE", TlsListener::open(files.clone(), config.tls_handshake));
    } else if !config.listen.ip().is_loopback() {
        found.notes.push(format!("callers speak plain HTTP to {}, keys included: something in front should speak TLS", config.listen));
    }
    private(&mut found, "TENON_GATEWAY_SEALING_KEY_FILE", &config.sealing_key_file);
    data_dir(&mut found, &config.data_dir);
    if let Some(sealing) = found.see("TENON_GATEWAY_SEALING_KEY_FILE", SealingKey::read(&config.sealing_key_file)) {
        saved(&mut found, config, Arc::new(sealing));
    }
    found
}

fn private(found: &mut Findings, name: &str, path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
    if mode & 0o077 != 0 {
        found.notes.push(format!("{name}: {} can be read by others than its owner", path.display()));
    }
}

fn data_dir(found: &mut Findings, dir: &Path) {
    // A start makes it; then its parent must let it.
    let place = dir.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(dir);
    let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
    if !place.is_dir() {
        found.wrong.push(format!("TENON_GATEWAY_DATA_DIR: {} is not a directory", place.display()));
    } else if rustix::fs::access(place, rustix::fs::Access::WRITE_OK).is_err() {
        found.wrong.push(format!("TENON_GATEWAY_DATA_DIR: {} cannot be written to", place.display()));
    }
}

/// The last known good snapshot: whether it opens, and what of it could not be used.
fn saved(found: &mut Findings, config: &Config, sealing: Arc<SealingKey>) {
    let Some(saved) = found.see("the saved snapshot", LastKnownGood::new(&config.data_dir, sealing.clone()).read()) else {
        return;
    };
    let Some(saved) = saved else {
        return found.notes.push("there is no saved snapshot: it serves when it has heard the control plane".into());
    };
    let revision = saved.update.revision;
    let snapshots = Snapshots::default();
    Store::new(snapshots.clone(), sealing).apply(saved.update);
    let snapshot = snapshots.load_full();
    found.notes.push(format!("the saved snapshot is at revision {revision} and knows {} keys", snapshot.keys().count()));
    let routes = snapshot.tables().flat_map(|table| table.models().map(move |model| (table, model)));
    for (table, model) in routes {
        for route in &model.routes {
            if let Err(reason) = &route.endpoint.target {
                let (tenant, endpoint) = (&table.table.tenant_id, &route.endpoint.id);
                found.notes.push(format!("tenant {tenant}, model {}: endpoint {endpoint} cannot be used: {reason}", model.name));
            }
        }
    }
}

/// What another start would change in the gateway that runs here, by its own account.
///
/// # Errors
/// When none answers.
pub fn diff(config: &Config) -> Result<String, String> {
    let running = running(config.admin_listen).map_err(|error| format!("no gateway answers at {}: {error}", config.admin_listen))?;
    let mut text = String::new();
    for (name, new) in &config.settings {
        let old = running.get(*name).and_then(serde_json::Value::as_str).unwrap_or("(unknown to it)");
        if old != new {
            text += &format!("{name}: {old} -> {new}\n");
        }
    }
    Ok(if text.is_empty() { "nothing would change\n".into() } else { text })
}

fn running(admin: SocketAddr) -> std::io::Result<serde_json::Value> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /config HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(std::io::Error::other)
}

pub fn json(settings: &Settings) -> String {
    serde_json::json!(settings).to_string()
}
