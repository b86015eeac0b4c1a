//! `<dir>/processes`: which runs of the gateway wrote into a directory of the log and were not told to be at rest.
//!
//! What a lease was not reported to have spent counts as spent until the log of its process has shipped. So the next run on the same disk
//! must be able to say "all of that run's records are with you", also when it dies itself between the last acknowledgement and saying so.

use crate::record_id::RecordId;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const NAME: &str = "processes";

/// The processes that wrote into a directory before this one held it.
#[derive(Debug)]
pub(crate) struct Earlier {
    pub dir: PathBuf,
    pub ids: Vec<RecordId>,
    /// Theirs that are not acknowledged to the end.
    pub segments: usize,
}

/// What cannot be read names nobody: an operator closes such leases.
pub(crate) fn read(dir: &Path) -> Vec<RecordId> {
    let text = std::fs::read_to_string(dir.join(NAME)).unwrap_or_default();
    text.lines().filter_map(RecordId::parse).collect()
}

/// Replaced in one step.
pub(crate) fn write(dir: &Path, ids: &[RecordId]) {
    let (path, new) = (dir.join(NAME), dir.join("processes.new"));
    let text: String = ids.iter().map(|id| format!("{}\n", &*id.text())).collect();
    let written = File::create(&new).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    if let Err(error) = written.and_then(|()| std::fs::rename(&new, &path)) {
        tracing::warn!(path = %path.display(), "the list of processes could not be written; leases of this run may need an operator: {error}");
    }
}

pub(crate) fn adopted(known: &mut Vec<Earlier>, earlier: Earlier, shipped: &mut Vec<RecordId>) {
    if earlier.segments == 0 {
        shipped.extend(&earlier.ids);
    }
    known.push(earlier);
}

/// A segment of an earlier process is acknowledged to its end and gone.
pub(crate) fn deleted(known: &mut [Earlier], segment: &Path, shipped: &mut Vec<RecordId>) {
    let Some(earlier) = known.iter_mut().find(|earlier| Some(&*earlier.dir) == segment.parent()) else {
        return;
    };
    earlier.segments = earlier.segments.saturating_sub(1);
    if earlier.segments == 0 {
        shipped.extend(&earlier.ids);
    }
}
