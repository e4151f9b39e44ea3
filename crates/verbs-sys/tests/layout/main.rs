//! What this crate declares against the headers of rdma-core: a C program is made from the crate's own tables, compiled, run and compared.
//!
//! Needs a C compiler and headers; without either a test is skipped by name. `cargo xtask test` installs the headers of this system
//! and unpacks those of newer Debian suites; `SINEW_VERBS_HEADERS` names one more folder (that which holds `infiniband/`).

mod compiler;
mod completeness;
mod known;
mod program;

use sinew_testing::skip;
use std::path::{Path, PathBuf};

/// Everything that can be compared with the headers of one folder.
fn compare(include: &Path, name: &str) {
    let release = release(include);
    // Additions of a release that came after this was written are told, and no fault of it.
    let is_known = release.is_none_or(|release| release <= known::NEWEST);
    let (additions, differences): (Vec<String>, Vec<String>) = program::differences(include, name, release)
        .into_iter()
        .partition(|difference| !is_known && known::may_be_an_addition(difference));
    let mut left_out = completeness::left_out(include);
    left_out.extend(completeness::functions_left_out(include));
    println!("{}: rdma-core {release:?}", include.display());
    println!("{}\n{}", additions.join("\n"), left_out.join("\n"));
    assert!(differences.is_empty(), "{}:\n{}", include.display(), differences.join("\n"));
    assert!(!is_known || left_out.is_empty(), "{}:\n{}", include.display(), left_out.join("\n"));
}

/// Which release of rdma-core these headers are of: the file for pkg-config beside them says it, as `Version: 1.14.44.0`.
fn release(include: &Path) -> Option<u32> {
    let libraries = std::fs::read_dir(include.parent()?.join("lib")).ok()?;
    let folders = libraries.filter_map(Result::ok).map(|entry| entry.path().join("pkgconfig/libibverbs.pc"));
    let text = folders.filter_map(|file| std::fs::read_to_string(file).ok()).next()?;
    let version = text.lines().find_map(|line| line.strip_prefix("Version:"))?;
    version.trim().split('.').nth(2)?.parse().ok()
}

fn has_headers(include: &Path) -> bool {
    include.join("infiniband/verbs.h").is_file() && include.join("rdma/rdma_cma.h").is_file()
}

/// Where `cargo xtask test` unpacks headers of newer suites.
fn unpacked(suite: &str) -> PathBuf {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    scratch
        .parent()
        .expect("the scratch folder lies in the target folder")
        .join("verbs-headers")
        .join(suite)
        .join("usr/include")
}

#[test]
fn declarations_are_those_of_the_installed_headers() {
    let include = Path::new("/usr/include");
    if !has_headers(include) {
        skip!("verbs-headers", "libibverbs-dev and librdmacm-dev are not installed");
    }
    if !compiler::is_there() {
        skip!("verbs-headers", "no C compiler");
    }
    compare(include, "installed");
}

#[test]
fn declarations_are_those_of_newer_headers_and_of_those_that_are_named() {
    let named = std::env::var_os("SINEW_VERBS_HEADERS").filter(|name| !name.is_empty()).map(PathBuf::from);
    if let Some(include) = &named {
        assert!(
            has_headers(include),
            "{} holds no infiniband/verbs.h and rdma/rdma_cma.h",
            include.display()
        );
    }
    let suites = ["trixie", "sid"].map(unpacked).into_iter().filter(|include| has_headers(include));
    let folders: Vec<PathBuf> = suites.chain(named).collect();
    if folders.is_empty() {
        skip!("verbs-headers", "none under {}: cargo xtask test fetches them", unpacked("trixie").display());
    }
    if !compiler::is_there() {
        skip!("verbs-headers", "no C compiler");
    }
    for (number, include) in folders.iter().enumerate() {
        compare(include, &format!("newer-{number}"));
    }
}

/// The comparison itself must be able to fail.
#[test]
fn a_header_that_differs_is_noticed() {
    if !has_headers(Path::new("/usr/include")) || !compiler::is_there() {
        skip!("verbs-headers", "no headers or no C compiler");
    }
    let include = planted();
    let mut said = program::differences(&include, "planted", None);
    said.extend(completeness::left_out(&include));
    for word in [
        "struct ibv_sge: size",
        "struct ibv_sge: a field is missing",
        "struct ibv_qp_cap.max_recv_wr: offset",
        "IBV_QPS_RTS",
        "ibv_modify_qp: type",
        "struct ibv_srq_attr.max_sge: sign",
        "IBV_SEND_PLANTED",
        "struct ibv_planted",
    ] {
        assert!(said.iter().any(|line| line.contains(word)), "{word} is not noticed: {said:#?}");
    }
}

/// The installed headers with changes that a comparison must notice.
fn planted() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("planted-headers");
    for part in ["infiniband", "rdma"] {
        std::fs::create_dir_all(folder.join(part)).unwrap();
        for entry in std::fs::read_dir(Path::new("/usr/include").join(part)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), folder.join(part).join(entry.file_name())).unwrap();
            }
        }
    }
    let verbs = folder.join("infiniband/verbs.h");
    let mut text = std::fs::read_to_string(&verbs).unwrap();
    let changes = [
        ("struct ibv_sge {", "struct ibv_planted {\n\tint x;\n};\nstruct ibv_sge {\n\tuint64_t planted;"),
        (
            "\tuint32_t\t\tmax_send_wr;\n\tuint32_t\t\tmax_recv_wr;",
            "\tuint32_t\t\tmax_recv_wr;\n\tuint32_t\t\tmax_send_wr;",
        ),
        ("\tIBV_QPS_RTS,\n\tIBV_QPS_SQD,", "\tIBV_QPS_SQD,\n\tIBV_QPS_RTS,"),
        (
            "int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr,\n\t\t  int attr_mask);",
            "int ibv_modify_qp(struct ibv_qp *qp, int attr_mask, struct ibv_qp_attr *attr);",
        ),
        (
            "\tuint32_t\t\tmax_wr;\n\tuint32_t\t\tmax_sge;\n\tuint32_t\t\tsrq_limit;",
            "\tuint32_t\t\tmax_wr;\n\tint32_t\t\tmax_sge;\n\tuint32_t\t\tsrq_limit;",
        ),
        ("\tIBV_SEND_FENCE\t\t= 1 << 0,", "\tIBV_SEND_PLANTED = 1 << 9,\n\tIBV_SEND_FENCE\t\t= 1 << 0,"),
    ];
    for (from, to) in changes {
        assert!(text.contains(from), "the installed header has no {from:?} to change");
        text = text.replacen(from, to, 1);
    }
    std::fs::write(&verbs, text).unwrap();
    folder
}
