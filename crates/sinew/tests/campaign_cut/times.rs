//! How times are printed.

use std::time::Duration;

/// Times as a distribution: `median/p90/p99/max` in milliseconds.
pub(crate) fn spread(times: &mut [Duration]) -> String {
    if times.is_empty() {
        return "nothing measured".to_owned();
    }
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    format!("{} ms (median/p90/p99/max)", [at(50), at(90), at(99), at(100)].map(ms).join("/"))
}
