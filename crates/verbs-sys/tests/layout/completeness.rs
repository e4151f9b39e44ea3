//! The other way round: what the headers have and this crate has not.

use sinew_verbs_sys::layout::{all_codes, all_constants, all_structures};
use std::collections::HashSet;
use std::path::Path;

/// Left out on purpose, with the reason.
const LEFT_OUT: &[(&str, &str)] = &[
    ("IBV_ALLOCATOR_USE_DEFAULT", "a pointer, declared by hand"),
    ("__VERBS_ABI_IS_EXTENDED", "a pointer, declared by hand"),
    ("ibv_sa_mcmember_rec", "no function gives or takes it"),
    ("ibv_sa_service_rec", "no function gives or takes it"),
    ("ibv_fd_arr", "no function gives or takes it"),
];

/// Structures and constants of `verbs.h`, `sa.h` and `rdma_cma.h` that the crate does not have and that are not left out on purpose.
pub(crate) fn left_out(include: &Path) -> Vec<String> {
    let known: HashSet<&str> = all_codes()
        .flat_map(|code| code.constants)
        .chain(all_constants())
        .map(|constant| constant.c)
        .chain(all_structures().map(|structure| structure.rust))
        .chain(LEFT_OUT.iter().map(|(name, _)| *name))
        .collect();
    let mut said = Vec::new();
    for header in ["infiniband/verbs.h", "infiniband/sa.h", "rdma/rdma_cma.h"] {
        let text =
            std::fs::read_to_string(include.join(header)).expect("the headers were there a moment ago");
        let text = without_comments(&text);
        let names: Vec<String> = constants(&text).chain(structures(&text)).collect();
        assert!(names.len() > 10, "{header} has only {} names", names.len());
        let missing = names.into_iter().filter(|name| {
            // One past the last: it moves with every addition.
            !name.ends_with("_RESERVED") && !known.contains(name.trim_start_matches("struct "))
        });
        said.extend(missing.map(|name| format!("{header}: {name} is not declared here")));
    }
    said
}

/// Functions of the headers, exported or inline, that no file of the crate names.
pub(crate) fn functions_left_out(include: &Path) -> Vec<String> {
    let known = words_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut said = Vec::new();
    for (header, fewest) in [("infiniband/verbs.h", 150), ("rdma/rdma_cma.h", 30)] {
        let text =
            std::fs::read_to_string(include.join(header)).expect("the headers were there a moment ago");
        let names = called(&without_comments(&text));
        assert!(names.len() > fewest, "{header} has only {} functions", names.len());
        let missing = names.into_iter().filter(|name| !known.contains(name));
        let missing = missing.filter(|name| LEFT_OUT_FUNCTIONS.iter().all(|(left_out, _)| left_out != name));
        said.extend(missing.map(|name| format!("{header}: nothing here is called {name}")));
    }
    said
}

/// Functions that are left out on purpose, with the reason. Those of `rdma/rdma_verbs.h` are: each posts one request that its caller
/// can write down.
const LEFT_OUT_FUNCTIONS: &[(&str, &str)] = &[
    ("__ibv_get_device_list", "for drivers that are linked into the program"),
    ("ibv_static_providers", "for drivers that are linked into the program"),
    ("__ibv_reg_mr", "`VerbsTable::reg_mr`"),
    ("__ibv_reg_mr_iova", "`VerbsTable::reg_mr_iova`"),
    ("verbs_get_ctx_op", "a macro, here `ops::extended`"),
    ("ibv_wr_opcode_str", "exported as private to one release"),
];

/// Names before a parenthesis that look like functions of verbs.
fn called(text: &str) -> HashSet<String> {
    let ends = text.match_indices('(').map(|(at, _)| text[..at].trim_end());
    let names =
        ends.filter_map(|before| before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next());
    let ours = ["ibv_", "rdma_", "verbs_", "mult_to_", "mbps_to_"];
    names
        .filter(|name| ours.iter().any(|prefix| name.trim_start_matches('_').starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

/// Every word of the Rust files below a folder.
fn words_of(folder: &Path) -> HashSet<String> {
    let mut words = HashSet::new();
    for entry in std::fs::read_dir(folder).expect("the crate has sources") {
        let path = entry.expect("the crate has sources").path();
        if path.is_dir() {
            words.extend(words_of(&path));
        } else {
            let text = std::fs::read_to_string(&path).expect("sources are text");
            let split = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.extend(split.map(str::to_owned));
        }
    }
    words
}

fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        kept.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    kept + rest
}

/// Names before `=`, `,` or `}` inside of `enum { … }`, and those of `#define NAME value`.
fn constants(text: &str) -> impl Iterator<Item = String> {
    let mut names = Vec::new();
    for part in text.split("enum ").skip(1) {
        let Some((head, body)) = part.split_once('{') else { continue };
        if !head.trim().chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let Some((body, _)) = body.split_once('}') else { continue };
        for entry in body.split(',') {
            let name = entry.split('=').next().unwrap_or("").trim();
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                names.push(name.to_owned());
            }
        }
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("#define ")) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(_)) = (words.next(), words.next()) else { continue };
        if name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
            names.push(name.to_owned());
        }
    }
    names.into_iter()
}

/// `struct name {` at the start of a line.
fn structures(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("struct "));
    let names: Vec<String> = lines
        .filter_map(|line| line.trim_end().strip_suffix('{'))
        .map(|name| format!("struct {}", name.trim()))
        .filter(|name| !name.contains(['(', '*']))
        .collect();
    names.into_iter()
}
