//! `<dir>/processes`: which runs of the gateway wrote into a directory of the log and were not yet reported as shipped.
//!
//! Whatever of a lease was not reported counts as spent until the log of its process has shipped. So the next run on
//! the same disk must be able to report that all records of an earlier run have shipped. That must hold even if it dies
//! between the last acknowledgement and the report.

use crate::record_id::RecordId;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const NAME: &str = "processes";

/// The processes that wrote into a directory before this one locked it.
#[derive(Debug)]
pub(crate) struct EarlierProcesses {
    pub dir: PathBuf,
    pub ids: Vec<RecordId>,
    /// Their segments that are not yet acknowledged completely.
    pub segments: usize,
}

/// A file that cannot be read names no process: an operator closes such leases.
pub(crate) fn read(dir: &Path) -> Vec<RecordId> {
    let text = std::fs::read_to_string(dir.join(NAME)).unwrap_or_default();
    text.lines().filter_map(RecordId::parse).collect()
}

/// Replaces the file in one step.
pub(crate) fn write(dir: &Path, ids: &[RecordId]) {
    let (path, new) = (dir.join(NAME), dir.join("processes.new"));
    let text: String = ids.iter().map(|id| format!("{}\n", &*id.text())).collect();
    let written = File::create(&new).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    if let Err(error) = written.and_then(|()| std::fs::rename(&new, &path)) {
        tracing::warn!(path = %path.display(), "the list of processes could not be written, so an operator may have to close leases of this run: {error}");
    }
}

pub(crate) fn record_adoption(known: &mut Vec<EarlierProcesses>, earlier: EarlierProcesses, shipped: &mut Vec<RecordId>) {
    if earlier.segments == 0 {
        shipped.extend(&earlier.ids);
    }
    known.push(earlier);
}

/// A segment of an earlier process was acknowledged completely and deleted.
pub(crate) fn record_deletion(known: &mut [EarlierProcesses], segment: &Path, shipped: &mut Vec<RecordId>) {
    let Some(earlier) = known.iter_mut().find(|earlier| Some(&*earlier.dir) == segment.parent()) else {
        return;
    };
    earlier.segments = earlier.segments.saturating_sub(1);
    if earlier.segments == 0 {
        shipped.extend(&earlier.ids);
    }
}
