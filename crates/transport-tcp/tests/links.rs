//! Listeners, dials, names, directories: everything before there is a lane.

mod common;

use common::*;
use sinew_transport::{
    Availability, Domain, ErrorKind, Identity, LinkState, ListenScope, Locator, Poller, RECORD_LEN, Role,
    Transport, TransportError,
};
use sinew_transport_tcp::{
    CongestionControl, StreamOptions, TcpOptions, TcpTransport, UdsOptions, UdsTransport,
};
use sinew_wire::frame::stream;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(transport: &dyn Transport, listen: ListenScope) -> Result<Box<dyn Domain>, TransportError> {
    transport.open(context(&Arc::new(Poller::new().unwrap()), listen, 1))
}

fn uds_in(folder: &Path) -> UdsTransport {
    let mut options = UdsOptions::default();
    options.runtime_dir = Some(folder.to_owned());
    UdsTransport::new(options)
}

/// How a dial ends that cannot succeed.
fn failure(domain: &mut dyn Domain, to: &str) -> TransportError {
    let to: Locator = to.parse().unwrap();
    let mut link = match domain.dial(&to, 5) {
        Ok(link) => link,
        Err(error) => return error,
    };
    let mut error = None;
    wait("the dial to fail", || {
        error = link.poll().err();
        error.is_some()
    });
    let error = error.unwrap();
    assert_eq!(link.poll(), Err(error.clone()), "and the answer stays the same");
    error
}

#[test]
fn a_dial_says_what_is_wrong_and_what_to_do() {
    let mut tcp = open(&TcpTransport::default(), ListenScope::Nobody).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = failure(&mut *tcp, &format!("tcp:{free}"));
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.hint.contains("nobody listens"), "{error}");
    for bad in ["tcp:10.0.0.1", "tcp:10.0.0.1:0", "tcp:0.0.0.0:5", "shm:x"] {
        let error = failure(&mut *tcp, bad);
        assert_eq!(error.kind, ErrorKind::InvalidAddress, "{error}");
        assert!(!error.hint.is_empty(), "{error}");
    }
    let folder = Folder::new();
    let mut uds = open(&uds_in(&folder.0), ListenScope::Nobody).unwrap();
    let error = failure(&mut *uds, &format!("uds:{}/none.uds", folder.0.display()));
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.hint.contains("nobody listens"), "{error}");
    let long = format!("uds:/{}", "x".repeat(150));
    let error = failure(&mut *uds, &long);
    assert!(error.hint.contains("107 bytes"), "{error}");
    assert_eq!(failure(&mut *uds, "uds:relative").kind, ErrorKind::InvalidAddress);
}

#[test]
fn a_host_name_is_resolved_aside_and_dialled() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let port = net.to.body().rsplit_once(':').unwrap().1.to_owned();
    let to: Locator = format!("tcp:localhost:{port}").parse().unwrap();
    let mut link = net.client.dial(&to, 10).unwrap();
    assert_eq!(link.describe(), format!("localhost:{port}"));
    let mut events = Vec::new();
    wait("the link", || {
        net.poller.wait(Some(Duration::from_millis(100)), &mut events).unwrap();
        link.poll().unwrap() == LinkState::Ready
    });
    assert!(events.iter().any(|event| event.key.owner == 10), "the poller tells when the name is resolved");
}

#[test]
fn a_link_carries_whole_records_and_leaves_what_follows_to_the_lane() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let body = net.to.body().to_owned();
        let mut bytes = vec![1; RECORD_LEN];
        bytes.extend([2; RECORD_LEN]);
        bytes.extend(stream::encode(&eager(3), 4));
        bytes.extend(b"body");
        let mut socket: Box<dyn Write> = match family {
            Family::Uds => Box::new(UnixStream::connect(body).unwrap()),
            _ => Box::new(std::net::TcpStream::connect(body).unwrap()),
        };
        socket.write_all(&bytes).unwrap();
        let mut link = None;
        wait("the link", || {
            link = net.server.accept(11).unwrap();
            link.is_some()
        });
        let mut link = link.unwrap();
        for mark in [1, 2] {
            let mut record = [0; RECORD_LEN];
            wait("a record", || link.try_recv(&mut record).unwrap());
            assert_eq!(record, [mark; RECORD_LEN]);
        }
        let mut end = End::new(lane(link, Role::Acceptor, 11, PEER_TIMEOUT));
        wait("the frame", || {
            end.turn();
            !end.sink.frames.is_empty()
        });
        assert_eq!(end.sink.frames, [(eager(3), b"body".to_vec())]);
    }
}

#[test]
fn a_link_that_ends_early_is_broken_for_its_user_only() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut one, other) = net.links();
        drop(other);
        let mut record = [0; RECORD_LEN];
        let mut error = None;
        wait("the end", || {
            error = one.try_recv(&mut record).err();
            error.is_some()
        });
        assert_eq!(error.unwrap().kind, ErrorKind::Broken);
        // The same listener goes on.
        let (mut one, mut other) = net.links();
        exchange(&mut one, &mut other, 7);
    }
}

#[test]
fn connections_that_are_gone_before_they_are_accepted_cost_nothing() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    for _ in 0..200 {
        let socket = std::net::TcpStream::connect(net.to.body()).unwrap();
        // Closing with a linger of zero resets.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    }
    let mut seen = 0;
    while let Some(link) = net.server.accept(11).unwrap() {
        drop(link);
        seen += 1;
    }
    assert!(seen <= 200);
    let (mut one, mut other) = net.links();
    exchange(&mut one, &mut other, 7);
}

#[test]
fn the_kernel_says_who_is_there_on_a_unix_socket_and_an_address_on_tcp() {
    let mut net = Net::new(Family::Uds, StreamOptions::default());
    let (one, other) = net.links();
    let me = Identity::SameUser { pid: Some(std::process::id()) };
    assert_eq!((one.identity(), other.identity()), (me.clone(), me));
    assert_eq!(one.describe(), format!("pid {}", std::process::id()));
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (one, other) = net.links();
    assert_eq!(one.identity(), Identity::Remote(net.to.body().to_owned()));
    assert!(matches!(other.identity(), Identity::Remote(from) if from.starts_with("127.0.0.1:")));
}

#[test]
fn lanes_say_what_they_are() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (one, _other) = net.lanes();
        let info = one.info();
        assert_eq!(info.transport, if family == Family::Uds { "uds" } else { "tcp" });
        assert!(info.capabilities.local && info.capabilities.death_detected);
        assert!(!info.capabilities.memory_polled && !info.capabilities.pull);
        assert!(info.limits.frame_max >= 4096);
    }
}

#[test]
fn a_taken_port_is_passed_over_and_a_range_without_a_free_one_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut options = TcpOptions::default();
    options.bind = vec!["127.0.0.1:0".parse().unwrap()];
    options.ports = port..=port;
    let error = open(&TcpTransport::new(options.clone()), ListenScope::ThisUser).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Limit, "{error}");
    assert!(error.to_string().contains(&format!("from {port} to {port}")), "{error}");
    assert!(error.hint.contains("widen the range"), "{error}");
    options.ports = port..=port.saturating_add(200);
    if port < 65000 {
        let domain = open(&TcpTransport::new(options.clone()), ListenScope::ThisUser).unwrap();
        let got = domain.locators()[0].body().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        assert!(got > port && got <= port + 200, "{got}");
    }
    options.bind = vec![taken.local_addr().unwrap()];
    let error = open(&TcpTransport::new(options), ListenScope::ThisUser).err().unwrap();
    assert!(error.hint.contains("another port"), "{error}");
}

#[test]
fn advertised_addresses_replace_the_discovered_ones() {
    let mut options = TcpOptions::default();
    options.advertise = vec![
        "10.1.2.3".into(),
        "10.1.2.3:99".into(),
        "[fd00::1]:7".into(),
        "fd00::2".into(),
        "node7.example".into(),
    ];
    let domain = open(&TcpTransport::new(options.clone()), ListenScope::ThisUser).unwrap();
    let texts: Vec<String> = domain.locators().iter().map(ToString::to_string).collect();
    assert!(texts[0].starts_with("tcp:10.1.2.3:") && !texts[0].ends_with(":0"), "{texts:?}");
    assert_eq!(texts[1..3], ["tcp:10.1.2.3:99", "tcp:[fd00::1]:7"]);
    assert!(
        texts[3].starts_with("tcp:[fd00::2]:") && texts[4].starts_with("tcp:node7.example:"),
        "{texts:?}"
    );
    for bad in ["", "a b", "host:0", "host:x", "300.1.1.1"] {
        options.advertise = vec![bad.into()];
        let error = open(&TcpTransport::new(options.clone()), ListenScope::ThisUser).err().unwrap();
        assert_eq!(error.kind, ErrorKind::InvalidAddress, "{bad}: {error}");
    }
}

#[test]
fn what_is_published_can_be_dialled_and_loopback_comes_last() {
    let poller = Arc::new(Poller::new().unwrap());
    let transport = TcpTransport::default();
    let mut server = transport.open(context(&poller, ListenScope::Anywhere, 1)).unwrap();
    let mut client = transport.open(context(&poller, ListenScope::Nobody, 2)).unwrap();
    let locators = server.locators();
    let loopback = |to: &Locator| to.body().starts_with("127.") || to.body().starts_with("[::1]");
    let first = locators.iter().position(loopback).unwrap();
    assert!(locators[first..].iter().all(loopback), "{locators:?}");
    for to in locators {
        let mut link = client.dial(&to, 10).unwrap();
        wait("the link", || {
            let _ = server.accept(11).unwrap();
            link.poll().unwrap() == LinkState::Ready
        });
    }
}

#[test]
fn this_user_listens_on_loopback_only_and_nobody_not_at_all() {
    let domain = open(&TcpTransport::default(), ListenScope::ThisUser).unwrap();
    for to in domain.locators() {
        assert!(to.body().starts_with("127.0.0.1:") || to.body().starts_with("[::1]:"), "{to}");
    }
    let mut options = TcpOptions::default();
    options.bind = vec!["0.0.0.0:0".parse().unwrap()];
    let error = open(&TcpTransport::new(options), ListenScope::ThisUser).err().unwrap();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert!(error.hint.contains("secret"), "{error}");
    let mut domain = open(&TcpTransport::default(), ListenScope::Nobody).unwrap();
    assert!(domain.locators().is_empty() && domain.accept(1).unwrap().is_none());
}

#[test]
fn congestion_control_is_chosen_as_told_and_an_unknown_one_is_refused() {
    let mut options = TcpOptions::default();
    options.congestion_control = CongestionControl::Named("no-such-thing".into());
    let error = open(&TcpTransport::new(options), ListenScope::ThisUser).err().unwrap();
    assert!(error.hint.contains("this kernel has") && error.hint.contains("reno"), "{error}");
}

#[test]
fn probes_name_what_is_there() {
    assert!(matches!(TcpTransport::default().probe(), Availability::Usable(text) if text.contains("IPv4")));
    let folder = Folder::new();
    assert!(matches!(uds_in(&folder.0).probe(), Availability::Usable(_)));
    let missing = uds_in(Path::new("/proc/no-such-directory")).probe();
    assert!(matches!(missing, Availability::Missing(error) if error.hint.contains("runtime directory")));
}

#[test]
fn a_socket_file_lives_as_long_as_its_domain_and_is_for_its_user() {
    let folder = Folder::new();
    let domain = open(&uds_in(&folder.0), ListenScope::ThisUser).unwrap();
    let path = domain.locators()[0].body().to_owned();
    assert!(path.ends_with(".uds"));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(domain);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
}

#[test]
fn a_socket_in_a_directory_of_any_name_is_published_and_dialled() {
    for name in ["a b", "\u{e4}", "a,b", "a%41", "a\nb", "a\\b"] {
        let folder = Folder::new();
        let inner = folder.0.join(name);
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o700)).unwrap();
        let listening = open(&uds_in(&inner), ListenScope::ThisUser).unwrap();
        let locators = listening.locators();
        assert_eq!(locators.len(), 1, "{name:?}");
        let mut dialling = open(&uds_in(&inner), ListenScope::Nobody).unwrap();
        let mut link = dialling.dial(&locators[0], 5).unwrap();
        wait("the connection", || link.poll().unwrap() != LinkState::Connecting);
    }
    let folder = Folder::new();
    let long = folder.0.join("\u{e4}".repeat(35));
    std::fs::create_dir(&long).unwrap();
    std::fs::set_permissions(&long, PermissionsExt::from_mode(0o700)).unwrap();
    let error = open(&uds_in(&long), ListenScope::ThisUser).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("shorter runtime directory"), "{error}");
}

#[test]
fn sockets_of_dead_engines_are_removed_and_those_of_live_ones_are_not() {
    let folder = Folder::new();
    let alive = UnixListener::bind(folder.0.join("alive.uds")).unwrap();
    drop(UnixListener::bind(folder.0.join("dead.uds")).unwrap());
    for name in ["dead.new", "young.new"] {
        drop(UnixListener::bind(folder.0.join(name)).unwrap());
    }
    std::fs::write(folder.0.join("file.uds"), "no socket").unwrap();
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(&folder.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.len() < 20)
            .collect();
        names.sort();
        names
    };
    drop(open(&uds_in(&folder.0), ListenScope::ThisUser).unwrap());
    assert_eq!(
        names(),
        ["alive.uds", "dead.new", "file.uds", "young.new"],
        "a name without a listener goes at once"
    );
    // The kernel sets the time of change; only waiting makes a file old. Renaming makes one young again.
    wait("the socket that never came to listen to be old and removed", || {
        std::fs::rename(folder.0.join("young.new"), folder.0.join("young.2")).unwrap();
        std::fs::rename(folder.0.join("young.2"), folder.0.join("young.new")).unwrap();
        drop(open(&uds_in(&folder.0), ListenScope::ThisUser).unwrap());
        std::thread::sleep(Duration::from_millis(200));
        !names().contains(&"dead.new".to_owned())
    });
    assert_eq!(names(), ["alive.uds", "file.uds", "young.new"]);
    drop(alive);
}

#[test]
fn an_engine_that_starts_disturbs_none_that_listens_beside_it() {
    let folder = Folder::new();
    let mut first = open(&uds_in(&folder.0), ListenScope::ThisUser).unwrap();
    for _ in 0..3 {
        let _other = open(&uds_in(&folder.0), ListenScope::ThisUser).unwrap();
        assert!(first.accept(5).unwrap().is_none(), "nobody has dialled");
    }
    let to = first.locators().remove(0);
    let mut other = open(&uds_in(&folder.0), ListenScope::Nobody).unwrap();
    let mut link = other.dial(&to, 5).unwrap();
    wait("the link", || link.poll().unwrap() == LinkState::Ready);
    assert!(first.accept(5).unwrap().is_some());
}

#[test]
fn a_runtime_directory_that_leads_astray_is_refused() {
    let folder = Folder::new();
    let real = folder.0.join("real");
    let link = folder.0.join("link");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let error = open(&uds_in(&link), ListenScope::ThisUser).err().unwrap();
    assert!(matches!(error.kind, ErrorKind::PermissionDenied), "{error}");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = open(&uds_in(&real), ListenScope::ThisUser).err().unwrap();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o1777)).unwrap();
    open(&uds_in(&real), ListenScope::ThisUser).unwrap();
}

/// Names the socket that [`helper_of_another_user`] dials.
const HELPER: &str = "SINEW_TEST_DIAL";

#[test]
#[ignore = "[child] a process of another user runs this one"]
fn helper_of_another_user() {
    let Ok(path) = std::env::var(HELPER) else { return };
    let mut domain = open(&uds_in(Path::new("/tmp")), ListenScope::Nobody).unwrap();
    let to: Locator = format!("uds:{path}").parse().unwrap();
    let mut link = match domain.dial(&to, 5) {
        Ok(link) => link,
        Err(error) => panic!("{:?}", error.kind),
    };
    assert_eq!(link.poll().unwrap(), LinkState::Ready);
    assert_eq!(link.identity(), Identity::OtherUser { uid: 0 });
    assert!(link.try_send(&[1; RECORD_LEN]).unwrap());
}

/// Has a process of the user `nobody` dial `path`; `None` where this process may not become another user.
fn dialled_by_nobody(path: &str, folder: &Path) -> Option<bool> {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let program = folder.join("helper");
    std::fs::copy(std::env::current_exe().ok()?, &program).ok()?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).ok()?;
    let mut command = std::process::Command::new(&program);
    command.args(["--exact", "helper_of_another_user", "--ignored"]).env(HELPER, path).current_dir("/");
    let output = command.uid(65534).gid(65534).output().ok()?;
    Some(output.status.success())
}

#[test]
fn another_user_is_kept_out_or_named_as_what_it_is() {
    let folder = Folder::new();
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (scope, gets_in) in [(ListenScope::ThisUser, false), (ListenScope::Anywhere, true)] {
        let mut domain = open(&uds_in(&folder.0), scope).unwrap();
        let path = domain.locators()[0].body().to_owned();
        let Some(dialled) = dialled_by_nobody(&path, &folder.0) else {
            println!("SKIP this process cannot become another user");
            return;
        };
        assert_eq!(dialled, gets_in, "{scope:?}");
        let link = domain.accept(3).unwrap();
        assert_eq!(link.map(|link| link.identity()), gets_in.then_some(Identity::OtherUser { uid: 65534 }));
    }
}
