//! docs/reference/conformance.md: the table, written by the run itself.

use crate::policies::Policy;
use crate::rows::Row;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What one policy did at one door.
pub struct Cell<'a> {
    pub policy: &'a Policy,
    pub row: &'a Row,
    pub seen: String,
}

const HEAD: &str = "# Every policy at every door

Written by the conformance suite (`gateway/crates/gateway/tests/conformance`), which runs each cell against a gateway process with a real
upstream on loopback: what the caller was told, in its dialect's shape of errors; what was recorded; whether the upstream heard of it. The list
of doors is the product's own (`tenon-gateway doors`): a door without a row fails the suite. `●` a cell that was run, `·` cannot happen there,
or happens in the way of gRPC (messages, streams, deadlines, leaving), which `gateway/crates/gateway/tests/kserve.rs` covers.
";

pub fn page(rows: &[&Row], cells: &[Cell<'_>]) -> String {
    let mut page = HEAD.to_owned();
    let _ = writeln!(page, "\n## Doors\n\n| door | |\n|---|---|");
    rows.iter().for_each(|row| {
        let _ = writeln!(page, "| {} | {} |", row.short, row.name());
    });
    let _ = writeln!(page, "\n## Policies and faults: {} cells\n", cells.len());
    let _ =
        writeln!(page, "| | what every caller sees · the record · the upstream | {} |", rows.iter().map(|r| r.short).collect::<Vec<_>>().join(" | "));
    let _ = writeln!(page, "|---|---|{}", "---|".repeat(rows.len()));
    for (policy, outcomes) in outcomes(cells) {
        for (index, (text, doors)) in outcomes.iter().enumerate() {
            let marks = rows.iter().map(|row| if doors.contains(&row.short) { "●" } else { "·" }).collect::<Vec<_>>().join(" | ");
            let _ = writeln!(page, "| {} | {text} | {marks} |", if index == 0 { policy } else { "" });
        }
    }
    page
}

type Outcomes<'a> = Vec<(&'a str, BTreeMap<&'a str, Vec<&'a str>>)>;

/// In the order of the policies; doors that see the same stand together.
fn outcomes<'a>(cells: &'a [Cell<'_>]) -> Outcomes<'a> {
    let mut all: Outcomes<'_> = Vec::new();
    for cell in cells {
        if all.last().is_none_or(|(name, _)| *name != cell.policy.name) {
            all.push((cell.policy.name, BTreeMap::new()));
        }
        let last = &mut all.last_mut().unwrap().1;
        last.entry(&*cell.seen).or_default().push(cell.row.short);
    }
    all
}
