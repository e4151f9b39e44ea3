//! Opening libraries: the right one, wrong ones, none.
#![allow(unsafe_code)]

use sinew_testing::skip;
use sinew_verbs_sys::{Library, OpenError, Origin, VerbsTable};
use std::ffi::OsStr;
use std::path::PathBuf;

/// [`Library::open_files`] with files that the test made or that the system has.
fn open_files(ibverbs: Option<&OsStr>, rdmacm: Option<&OsStr>) -> Result<Library, OpenError> {
    // SAFETY: the system's libraries, files that are no libraries, and libraries whose functions nobody calls.
    unsafe { Library::open_files(ibverbs, rdmacm) }
}

/// The system's library, or `None` where there is none.
fn system() -> Option<Library> {
    match open_files(None, None) {
        Ok(library) => Some(library),
        Err(OpenError::NotThere { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_pinned_function_of_its_time_is_found_in_the_systems_library() {
    let Some(library) = system() else { skip!("libibverbs", "libibverbs.so.1 is not installed") };
    println!("{}", library.report());
    let report = library.report();
    assert_eq!(report.origin, Origin::Opened);
    let release =
        library.version().and_then(|version| version.release).expect("the file name tells the release");
    for found in &report.libraries {
        assert_eq!(found.unpinned, Vec::<&str>::new(), "{}: every version is the right one", found.library);
        for missing in &found.missing {
            let since = missing.since.expect("optional functions have a known release");
            assert!(since > release, "{missing} is missing from rdma-core {release}");
        }
    }
}

#[test]
fn the_extras_of_vendors_are_found_where_their_drivers_are() {
    let Some(library) = system() else { skip!("libibverbs", "libibverbs.so.1 is not installed") };
    for (name, is_found) in
        [("libefa.so.1", library.efa().is_some()), ("libmlx5.so.1", library.mlx5().is_some())]
    {
        let folder = library.report().libraries[0].path.as_ref().and_then(|path| path.parent()).unwrap();
        assert_eq!(is_found, folder.join(name).exists(), "{name}");
    }
    let said = library.extras().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(said.contains("libefa: ") && said.contains("libmlx5: "), "{said}");
}

/// Runs this very program once more, with these variables, as [`opened_by_environment`] alone; answers what it printed.
fn with_environment(variables: &[(&str, &str)]) -> String {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "opened_by_environment", "--nocapture"]).env(CHILD, "1");
    let output = child.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const CHILD: &str = "VERBS_SYS_TEST_CHILD";

#[test]
fn opened_by_environment() {
    if std::env::var_os(CHILD).is_some() {
        match Library::open() {
            Ok(library) => println!("opened: {}", library.report()),
            Err(error) => println!("refused: {error}"),
        }
        return;
    }
    if system().is_none() {
        skip!("libibverbs", "libibverbs.so.1 is not installed");
    }
    assert!(with_environment(&[]).contains("opened: verbs: libraries opened at run time"));
    let empty = with_environment(&[("SINEW_IBVERBS_LIB", ""), ("SINEW_RDMACM_LIB", "")]);
    assert!(empty.contains("opened: "), "an empty variable names nothing: {empty}");
    let wrong = with_environment(&[("SINEW_IBVERBS_LIB", "/nonexistent/verbs.so")]);
    assert!(wrong.contains("refused: libibverbs is not there: /nonexistent/verbs.so"), "{wrong}");
    let wrong = with_environment(&[("SINEW_RDMACM_LIB", "/nonexistent/cm.so")]);
    assert!(wrong.contains("refused: librdmacm is not there: /nonexistent/cm.so"), "{wrong}");
}

#[cfg(feature = "link")]
#[test]
fn a_linked_program_has_its_libraries_from_the_start() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains("/libibverbs.so.1") && maps.contains("/librdmacm.so.1"), "{maps}");
    let library = Library::linked().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(library.report().origin, Origin::Linked);
    assert!(library.cm().is_some());
}

#[test]
fn a_library_that_is_not_there_is_named_with_what_to_do() {
    let error = open_files(Some(OsStr::new("/nonexistent/libibverbs.so.1")), None).unwrap_err();
    assert!(matches!(error, OpenError::NotThere { library: "libibverbs", .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("/nonexistent/libibverbs.so.1") && text.contains("apt-get install libibverbs1"),
        "{text}"
    );
    assert!(text.contains("SINEW_IBVERBS_LIB"), "{text}");
}

#[test]
fn a_file_that_is_no_library_is_not_loadable() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (empty, garbage) = (folder.join("empty.so"), folder.join("garbage.so"));
    std::fs::write(&empty, b"").unwrap();
    std::fs::write(&garbage, [0x5a; 4096]).unwrap();
    for file in [&empty, &garbage, &folder] {
        let error = open_files(Some(file.as_os_str()), None).unwrap_err();
        assert!(matches!(error, OpenError::NotLoadable { library: "libibverbs", .. }), "{error:?}");
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}

#[test]
fn another_library_is_refused_with_the_functions_that_it_lacks() {
    let error = open_files(Some(OsStr::new("libc.so.6")), None).unwrap_err();
    let OpenError::Incomplete { missing, .. } = &error else { panic!("{error:?}") };
    let required = VerbsTable::SYMBOLS.iter().filter(|symbol| symbol.required).count();
    assert_eq!(missing.len(), required);
    assert!(error.to_string().contains("ibv_get_device_list"), "{error}");
}

#[test]
fn a_named_file_of_connection_management_that_is_wrong_is_an_error() {
    if system().is_none() {
        skip!("libibverbs", "libibverbs.so.1 is not installed");
    }
    let absent = open_files(None, Some(OsStr::new("/nonexistent/librdmacm.so.1"))).unwrap_err();
    assert!(matches!(absent, OpenError::NotThere { library: "librdmacm", .. }), "{absent:?}");
    let wrong = open_files(None, Some(OsStr::new("libc.so.6"))).unwrap_err();
    assert!(matches!(wrong, OpenError::Incomplete { .. }), "{wrong:?}");
}

#[test]
fn a_name_with_a_zero_byte_is_an_error() {
    let error = open_files(Some(OsStr::new("lib\0ibverbs.so.1")), None).unwrap_err();
    assert!(matches!(error, OpenError::NotLoadable { .. }), "{error:?}");
}
