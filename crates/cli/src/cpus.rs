//! Which processors the two processes of a measurement run on.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Processors that this process may run on.
pub(crate) fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Two allowed processors, on two cores where there are two; `None` where only one is allowed.
pub(crate) fn two() -> Option<(usize, usize)> {
    let allowed = allowed();
    let (&first, rest) = allowed.split_first()?;
    let siblings = siblings_of(first);
    let other_core = rest.iter().find(|cpu| !siblings.contains(cpu));
    other_core.or_else(|| rest.first()).map(|&second| (first, second))
}

/// Keeps this thread, and those that it starts, on one processor.
pub(crate) fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|errno| format!("cannot pin to processor {cpu}: {errno}"))
}

/// Hardware threads of the same core, as the kernel lists them: `0,4` or `0-1`.
fn siblings_of(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    std::fs::read_to_string(path).map_or_else(|_| vec![cpu], |text| parse_list(&text))
}

fn parse_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (usize, usize) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        (high < CpuSet::MAX_CPU).then_some(low..=high)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sibling_lists_are_read_in_both_forms() {
        assert_eq!(parse_list("0,4\n"), [0, 4]);
        assert_eq!(parse_list("2-3,8\n"), [2, 3, 8]);
        assert_eq!(parse_list("garbage,0-99999999999"), [] as [usize; 0]);
    }

    #[test]
    fn the_two_processors_differ_and_are_allowed() {
        if let Some((first, second)) = two() {
            assert_ne!(first, second);
            assert!(allowed().contains(&first) && allowed().contains(&second));
        }
    }
}
