//! The data plane's process.
//!
//! Owns: configuration, wiring, signals, the admin listener, logs.
//! Promises: it starts whole or not at all, with one sentence saying why; on SIGTERM or SIGINT it finishes what runs, ships what ended, and
//! ends; it never leaves the foreground.
//! Needs: every other crate; nothing needs it.

mod admin;
mod check;
mod config;
mod exposition;
mod handover;
mod logs;
mod wiring;

use config::{Config, Wanted};
use std::process::ExitCode;

// Keeps what it frees for two seconds, then gives it back: 5,000 streams must not leave their memory behind.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[allow(unsafe_code)] // the name is jemalloc's interface, read once when the process starts
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 60] = b"background_thread:true,dirty_decay_ms:2000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(Wanted::Run(config)) => config,
        Ok(Wanted::Tell(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Wanted::Check(config)) => {
            let found = check::check(&config);
            print!("{}", found.text());
            return ExitCode::from(if found.is_well() { 0 } else { 2 });
        }
        Ok(Wanted::Diff(config)) => {
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
