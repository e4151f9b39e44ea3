//! Runs this program under callgrind and reads its count.

use super::{Failure, Row, Side};
use clap::ValueEnum;
use std::path::Path;
use std::process::Command;

/// Numbers of requests of the two runs; multiples of a batch.
const FEW: u64 = 1_600;
const MANY: u64 = 11_200;

/// Instructions that one request costs.
pub(crate) fn per_request(side: Side, row: Row) -> Result<f64, Failure> {
    let (few, many) = (count(side, row, FEW)?, count(side, row, MANY)?);
    Ok((many as f64 - few as f64) / (MANY - FEW) as f64)
}

fn count(side: Side, row: Row, requests: u64) -> Result<u64, Failure> {
    let program = std::env::current_exe()?;
    let out = program.with_extension(format!("callgrind-{}", std::process::id()));
    let side = side.to_possible_value().ok_or("a side without a name")?;
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(&program)
        .args(["--side", side.get_name(), "--row", &row.name(), "--requests", &requests.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}; apt-get install valgrind"))?;
    if !run.status.success() {
        return Err(format!("{}: {}", row.name(), String::from_utf8_lossy(&run.stderr)).into());
    }
    let count = total(&out);
    std::fs::remove_file(&out)?;
    count
}

/// The sum that callgrind wrote.
fn total(out: &Path) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(out)?;
    let line = text.lines().find_map(|line| line.strip_prefix("summary:").or(line.strip_prefix("totals:")));
    Ok(line.ok_or("callgrind wrote no sum")?.trim().parse()?)
}
