//! `sinew-sim`: runs seeds, prints those that fail and how to replay them.
//!
//! Called by people and by `cargo xtask sim`. It decides nothing about a simulation but which seeds run.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match sinew_sim::command::main(&arguments) {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            std::process::ExitCode::from(2)
        }
    }
}
