//! docs/reference/conformance.md: the table of results.

use crate::policies::Policy;
use crate::rows::Row;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The outcome of one policy at one row.
pub struct Cell<'a> {
    pub policy: &'a Policy,
    pub row: &'a Row,
    pub outcome: String,
}

const HEAD: &str = "# Every policy at every route

Written by the conformance suite (`gateway/crates/gateway/tests/conformance`), which runs each cell against a gateway
process with a real upstream on loopback. A cell shows the caller's answer, in the error format of its dialect, the
usage record, and whether the upstream was called. The list of routes is the product's own (`tenon-gateway routes`): a
route without a row fails the suite. `●` marks a cell that was run. `·` marks one that cannot happen, or that differs
over gRPC (messages, streams, deadlines, cancellation), which `gateway/crates/gateway/tests/kserve.rs` covers.
";

pub fn page(rows: &[&Row], cells: &[Cell<'_>]) -> String {
    let mut page = HEAD.to_owned();
    let _ = writeln!(page, "\n## Routes\n\n| column | route |\n|---|---|");
    rows.iter().for_each(|row| {
        let _ = writeln!(page, "| {} | {} |", row.short, row.name());
    });
    let _ = writeln!(page, "\n## Policies and faults: {} cells\n", cells.len());
    let _ = writeln!(page, "| policy or fault | answer · record · upstream |{}|", rows.iter().map(|r| r.short).collect::<Vec<_>>().join("|"));
    let _ = writeln!(page, "|---|---|{}", "---|".repeat(rows.len()));
    for (policy, outcomes) in outcomes(cells) {
        for (index, (text, columns)) in outcomes.iter().enumerate() {
            let marks = rows.iter().map(|row| if columns.contains(&row.short) { "●" } else { "·" }).collect::<Vec<_>>().join("|");
            let _ = writeln!(page, "| {} | {text} |{marks}|", if index == 0 { policy } else { "" });
        }
    }
    page
}

type Outcomes<'a> = Vec<(&'a str, BTreeMap<&'a str, Vec<&'a str>>)>;

/// In the order of the policies; rows with the same outcome are together.
fn outcomes<'a>(cells: &'a [Cell<'_>]) -> Outcomes<'a> {
    let mut all: Outcomes<'_> = Vec::new();
    for cell in cells {
        if all.last().is_none_or(|(name, _)| *name != cell.policy.name) {
            all.push((cell.policy.name, BTreeMap::new()));
        }
        let last = &mut all.last_mut().unwrap().1;
        last.entry(&*cell.outcome).or_default().push(cell.row.short);
    }
    all
}
