//! What every layer uses: headers, problems, limits of sizes and times.

pub mod boxing;
pub mod headers;
pub mod limits;
pub mod peer;
pub mod percent;
pub mod problem;
