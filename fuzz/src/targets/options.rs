//! Options: any environment is options, or an error that names the variable; a value that a row takes is the option's value.

use super::note;
use sinew::{EngineOptions, OptionRow, TransportOptions, option_tables};

pub(super) fn run(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let rows: Vec<&OptionRow> = option_tables().into_iter().flatten().collect();
    let mut outcome = 0;
    let pairs: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
    for &(name, value) in &pairs {
        let Some(place) = rows.iter().position(|row| row.env == name || row.name == name) else { continue };
        let row = rows[place];
        let single = [(row.env, value)];
        let class = match (row.check)(value) {
            Ok(()) => {
                sinew::EngineOptions::from_environment(single).expect("what the row takes");
                TransportOptions::from_environment(single).expect("what the row takes");
                0
            }
            Err(cause) => {
                assert!(!cause.is_empty());
                let engine = EngineOptions::from_environment(single).map(drop);
                let transports = TransportOptions::from_environment(single).map(drop);
                let error = engine.and(transports).expect_err("what the row does not take").to_string();
                assert!(error.contains(row.env), "{error}");
                cause.bytes().fold(1, |sum, byte| note(sum, u64::from(byte)))
            }
        };
        outcome = note(outcome, note(place as u64, class));
    }
    let engine = EngineOptions::from_environment(pairs.iter().copied());
    let transports = TransportOptions::from_environment(pairs.iter().copied());
    for error in [engine.map(drop), transports.map(drop)].into_iter().filter_map(Result::err) {
        assert!(pairs.iter().any(|(name, _)| error.to_string().contains(name)), "{error}");
    }
    outcome
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let rows: Vec<&OptionRow> = option_tables().into_iter().flatten().collect();
    let mut seeds: Vec<Vec<u8>> = rows
        .iter()
        .flat_map(|row| [row.default, row.kind.example()].map(|value| format!("{}={value}\n", row.env)))
        .map(String::into_bytes)
        .collect();
    let values =
        ["18446744073709551616", "1e400s", "-1", "0.5ms", "99999999999999999999gb", "1.5kib", "forever", "∞"];
    seeds.extend(values.map(|value| {
        rows.iter().map(|row| format!("{}={value}\n", row.env)).collect::<String>().into_bytes()
    }));
    seeds.push(b"SINEW_EAGRE_MAX=1\nSINEW_=2\nHOME=/\n".to_vec());
    seeds
}
