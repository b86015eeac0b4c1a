//! One call of a model, from its admission to its settlement.

pub mod request_info;
pub mod report;
pub mod guard;
