//! The last known good copy on disk, from which a start without the control plane serves.
//!
//! File: magic (8 bytes) · revision (u64) · last contact with the control plane (i64, Unix ms) · `Snapshot`
//! message · HMAC-SHA-256 of everything before. It is written to another file, synced, and renamed over the old one, so
//! a reader sees the whole old or the whole new file.

use crate::sealing::SealingKey;
use crate::snapshot::Snapshot;
use prost::Message;
use prost::encoding::{message, string};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tenon_contract as wire;

const MAGIC: &[u8; 8] = b"TNLKG01\n";
const HEAD: usize = 24;
const TAG: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    #[error("{0} was not signed with this sealing key, or was changed")]
    Signature(PathBuf),
    #[error("{0} is signed but cannot be read, because another version wrote it")]
    Format(PathBuf),
}

/// The contents of the file.
#[derive(Debug)]
pub struct Saved {
    pub update: wire::Update,
    pub last_contact_unix_ms: i64,
}

#[derive(Clone, Debug)]
pub struct LastKnownGood {
    path: PathBuf,
    sealing: Arc<SealingKey>,
}

impl LastKnownGood {
    #[must_use]
    pub fn new(data_dir: &Path, sealing: Arc<SealingKey>) -> Self {
        Self { path: data_dir.join("last-known-good.bin"), sealing }
    }

    /// The bytes to write. Call it on the control thread; [`LastKnownGood::write`] may run on any thread.
    #[must_use]
    pub fn encode(&self, snapshot: &Snapshot, last_contact_unix_ms: i64) -> Vec<u8> {
        let mut file = Vec::with_capacity(4096);
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&snapshot.revision.to_le_bytes());
        file.extend_from_slice(&last_contact_unix_ms.to_le_bytes());
        // The fields of `wire::Snapshot` one by one: building the message would clone every record.
        string::encode(1, &snapshot.origin.to_string(), &mut file);
        snapshot.keys().for_each(|key| message::encode(2, &key.record, &mut file));
        snapshot.routings().for_each(|table| message::encode(3, &table.table, &mut file));
        snapshot.governances().for_each(|governance| message::encode(5, &**governance, &mut file));
        snapshot.trusted_issuers().issuers().for_each(|issuer| message::encode(6, &issuer.record, &mut file));
        let tag = self.sealing.sign(&file);
        file.extend_from_slice(tag.as_ref());
        file
    }

    /// # Errors
    /// When the disk fails.
    pub fn write(&self, file: &[u8]) -> Result<(), DiskError> {
        let io = |e| DiskError::Io(self.path.clone(), e);
        // One for each process, because two of them save during a hand-over.
        let temporary = self.path.with_extension(format!("new.{}", std::process::id()));
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(io)?;
        out.write_all(file).and_then(|()| out.sync_all()).map_err(io)?;
        std::fs::rename(&temporary, &self.path).map_err(io)?;
        self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()).map_err(io)
    }

    /// `None` when there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or was not written by this gateway.
    pub fn read(&self) -> Result<Option<Saved>, DiskError> {
        let file = match std::fs::read(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(DiskError::Io(self.path.clone(), e)),
        };
        let signed = file.len().checked_sub(TAG).filter(|end| *end >= HEAD).map(|end| file.split_at(end));
        let (text, _) = signed.filter(|(text, tag)| self.sealing.verify(text, tag)).ok_or_else(|| DiskError::Signature(self.path.clone()))?;
        self.parse(text).map(Some).ok_or_else(|| DiskError::Format(self.path.clone()))
    }

    fn parse(&self, text: &[u8]) -> Option<Saved> {
        let (head, body) = text.split_at(HEAD);
        let revision = u64::from_le_bytes(head[8..16].try_into().ok()?);
        let last_contact_unix_ms = i64::from_le_bytes(head[16..24].try_into().ok()?);
        let snapshot = wire::Snapshot::decode(body).ok().filter(|_| head[..8] == *MAGIC)?;
        let update = wire::Update { revision, change: Some(wire::update::Change::Snapshot(snapshot)), committed_at_unix_ms: 0 };
        Some(Saved { update, last_contact_unix_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::SharedSnapshot;
    use crate::store::Store;
    use std::os::unix::fs::PermissionsExt;

    fn sealing(byte: u8) -> Arc<SealingKey> {
        Arc::new(SealingKey::new(&[byte; 32]).unwrap())
    }

    fn update() -> wire::Update {
        let key =
            wire::KeyRecord { key_id: "abcdefghij".into(), secret_sha256: vec![7; 32], revision: 3, tenant_id: "t".into(), ..Default::default() };
        let table = wire::RoutingTable { tenant_id: "t".into(), revision: 2, ..Default::default() };
        let governance = wire::Governance { tenant_id: "t".into(), revision: 4, ..Default::default() };
        let issuer = wire::Issuer { issuer_id: "i".into(), tenant_id: "t".into(), revision: 5, ..Default::default() };
        let (governance, issuers) = (vec![governance], vec![issuer]);
        let full = wire::Snapshot { origin: "o".into(), keys: vec![key], routing: vec![table], markings: vec![], governance, issuers };
        wire::Update { revision: 9, change: Some(wire::update::Change::Snapshot(full)), committed_at_unix_ms: 0 }
    }

    #[test]
    fn a_start_reads_back_what_was_saved_and_only_the_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let shared = SharedSnapshot::default();
        Store::new(shared.clone(), sealing(1)).apply(update());
        let disk = LastKnownGood::new(dir.path(), sealing(1));
        assert!(disk.read().unwrap().is_none());
        disk.write(&disk.encode(&shared.load(), 42)).unwrap();
        let saved = disk.read().unwrap().unwrap();
        assert_eq!((saved.last_contact_unix_ms, saved.update), (42, update()));
        assert_eq!(std::fs::metadata(&disk.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_changed_file_and_another_key_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = LastKnownGood::new(dir.path(), sealing(1));
        let mut file = disk.encode(&Snapshot::default(), 0);
        disk.write(&file).unwrap();
        assert!(matches!(LastKnownGood::new(dir.path(), sealing(2)).read(), Err(DiskError::Signature(_))));
        file[9] ^= 1;
        disk.write(&file).unwrap();
        assert!(matches!(disk.read(), Err(DiskError::Signature(_))));
        disk.write(&file[..10]).unwrap();
        assert!(matches!(disk.read(), Err(DiskError::Signature(_))));
    }
}
