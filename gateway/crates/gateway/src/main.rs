//! The process of the data plane.
//!
//! Owns: configuration, wiring, signals, the admin listener, logs.
//! Promises: it starts completely or not at all, with one sentence that says why. On SIGTERM or SIGINT it finishes running calls, ships
//! usage and ends. It stays in the foreground.
//! Needs: every other crate; no crate needs it.

mod logs;
mod config;
mod check;
mod admin_state;
mod exposition;
mod admin;
mod handover;
mod wiring;

use config::{Command, Config};
use std::process::ExitCode;

// Keeps freed memory for two seconds, then returns it to the system: the memory of 5,000 streams must not stay allocated.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[allow(unsafe_code)] // the name is jemalloc's interface, read once when the process starts
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 60] = b"background_thread:true,dirty_decay_ms:2000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(Command::Run(config)) => config,
        Ok(Command::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Command::Check(config)) => {
            let report = check::check(&config);
            print!("{}", report.text());
            return ExitCode::from(if report.is_ok() { 0 } else { 2 });
        }
        Ok(Command::Diff(config)) => {
            return match check::diff(&config) {
                Ok(text) => {
                    print!("{text}");
                    ExitCode::SUCCESS
                }
                Err(sentence) => fail(1, &sentence),
            };
        }
        Err(problem) => return fail(2, &problem.to_string()),
    };
    logs::start();
    match wiring::run(*config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(problem.exit_code(), &problem.to_string()),
    }
}

fn fail(code: u8, sentence: &str) -> ExitCode {
    eprintln!("tenon-gateway: {sentence}");
    ExitCode::from(code)
}
