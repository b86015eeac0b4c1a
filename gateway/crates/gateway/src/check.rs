//! `tenon-gateway check` and `diff`: whether a gateway can start with this environment, and what that would change. Nothing is started, bound or
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
use tenon_snapshot::{LastKnownGood, SealingKey, SharedSnapshot, Store};
use tenon_upstream::trust_store::TrustStore;

/// The problems and notes, a sentence each.
#[derive(Default)]
pub struct Report {
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    fn check<T, E: Display>(&mut self, subject: &str, result: Result<T, E>) -> Option<T> {
        result.inspect_err(|error| self.problems.push(format!("{subject}: {error}"))).ok()
    }

    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    pub fn text(&self) -> String {
        let problems = self.problems.iter().map(|sentence| format!("problem  {sentence}\n"));
        let notes = self.notes.iter().map(|sentence| format!("note     {sentence}\n"));
        let end = if self.is_ok() { "ok       a gateway can start with this environment\n".to_owned() } else { String::new() };
        problems.chain(notes).chain([end]).collect()
    }
}

pub fn check(config: &Config) -> Report {
    let mut report = Report::default();
    if config.token.is_empty() {
        report.problems.push("TENON_GATEWAY_TOKEN_FILE: it is empty".into());
    }
    report.check("TENON_GATEWAY_CONTROL_URL", config.control_plane().check());
    report.check("TENON_GATEWAY_UPSTREAM_CA_FILE", TrustStore::open(config.upstream_authorities.clone()));
    if let Some(files) = &config.tls {
        private(&mut report, "TENON_GATEWAY_TLS_KEY_FILE", &files.key);
        report.check("TENON_GATEWAY_TLS_CERT_FILE", TlsListener::open(files.clone(), config.tls_handshake));
    } else if !config.listen.ip().is_loopback() {
        report.notes.push(format!("callers send their keys to {} over plain HTTP: a proxy in front of it should terminate TLS", config.listen));
    }
    private(&mut report, "TENON_GATEWAY_SEALING_KEY_FILE", &config.sealing_key_file);
    data_dir(&mut report, &config.data_dir);
    if let Some(sealing) = report.check("TENON_GATEWAY_SEALING_KEY_FILE", SealingKey::read(&config.sealing_key_file)) {
        saved(&mut report, config, Arc::new(sealing));
    }
    report
}

fn private(report: &mut Report, name: &str, path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
    if mode & 0o077 != 0 {
        report.notes.push(format!("{name}: {} can be read by others than its owner", path.display()));
    }
}

fn data_dir(report: &mut Report, dir: &Path) {
    // The gateway creates it; then its parent must be writable.
    let existing = dir.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(dir);
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    if !existing.is_dir() {
        report.problems.push(format!("TENON_GATEWAY_DATA_DIR: {} is not a directory", existing.display()));
    } else if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        report.problems.push(format!("TENON_GATEWAY_DATA_DIR: {} cannot be written to", existing.display()));
    }
}

/// The last known good snapshot: whether it can be read, and which of its endpoints cannot be used.
fn saved(report: &mut Report, config: &Config, sealing: Arc<SealingKey>) {
    let Some(saved) = report.check("the saved snapshot", LastKnownGood::new(&config.data_dir, sealing.clone()).read()) else {
        return;
    };
    let Some(saved) = saved else {
        return report.notes.push("there is no saved snapshot: the gateway serves only after it has reached the control plane".into());
    };
    let revision = saved.update.revision;
    let snapshots = SharedSnapshot::default();
    Store::new(snapshots.clone(), sealing).apply(saved.update);
    let snapshot = snapshots.load_full();
    report.notes.push(format!("the saved snapshot is at revision {revision} and has {} keys", snapshot.keys().count()));
    let routes = snapshot.routings().flat_map(|table| table.models().map(move |model| (table, model)));
    for (table, model) in routes {
        for route in &model.routes {
            if let Err(reason) = &route.endpoint.target {
                let (tenant, endpoint) = (&table.table.tenant_id, &route.endpoint.id);
                report.notes.push(format!("tenant {tenant}, model {}: endpoint {endpoint} cannot be used: {reason}", model.name));
            }
        }
    }
}

/// The variables that a restart would change, compared with the running gateway's own report.
///
/// # Errors
/// When no gateway answers.
pub fn diff(config: &Config) -> Result<String, String> {
    let running = running(config.admin_listen).map_err(|error| format!("no gateway answers at {}: {error}", config.admin_listen))?;
    let mut text = String::new();
    for (name, new) in &config.settings {
        let old = running.get(*name).and_then(serde_json::Value::as_str).unwrap_or("(unknown)");
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
