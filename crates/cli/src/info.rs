//! `sinew info`: what can be used on this machine, what is missing and how to get it, and every option.

use crate::access::{Access, Place};
use crate::failure::Failure;
use crate::output::{Paint, Tone, help, print};
use crate::verbs::Verbs;
use serde::Serialize;
use sinew::{OptionRow, Progress};

/// Show which transports work here, what is missing and how to get it
///
/// Opens every transport as an engine does, so that what it says is true and not guessed.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = help(&[
    "sinew info                     transports, what is missing, verbs devices, limits of this machine",
    "sinew info --options           every option: default, environment variable, cost, help",
    "sinew info --options --json    the same for programs",
]))]
pub(crate) struct Args {
    /// Every option with its default, environment variable, cost and help
    #[arg(long)]
    options: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// A transport of this build, tried out.
#[derive(Serialize)]
struct Tried {
    name: &'static str,
    works: bool,
    /// Where an engine listens for this user.
    listens: Vec<String>,
    /// Why it does not work, and what can be done.
    reason: Option<String>,
}

/// A transport of the field that this version does not have.
#[derive(Serialize)]
struct Missing {
    name: &'static str,
    what: &'static str,
    here: String,
    remedy: &'static str,
}

#[derive(Serialize)]
struct Machine {
    kernel: String,
    processors_allowed: usize,
    open_files_max: Option<u64>,
    file_size_max: Option<u64>,
    runtime_dir: Option<String>,
}

#[derive(Serialize)]
struct OptionOut {
    name: &'static str,
    default: &'static str,
    env: &'static str,
    kind: &'static str,
    cost: &'static str,
    help: String,
    /// From the environment of this process.
    set_to: Option<String>,
}

#[derive(Serialize)]
struct Info {
    schema: u32,
    version: &'static str,
    transports: Vec<Tried>,
    missing: Vec<Missing>,
    verbs: Verbs,
    machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Vec<OptionOut>>,
}

/// The command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Options that no engine could be made with are named, not passed over.
    match Access::default().with_domain("info").engine(&Place::Anywhere, false, Progress::Caller) {
        Err(failure) if failure.code() == crate::failure::USAGE => return Err(failure),
        _ => {}
    }
    if args.options && !args.json {
        return print(&option_text(&option_rows(), Paint::for_stdout()));
    }
    let info = Info {
        schema: 1,
        version: env!("CARGO_PKG_VERSION"),
        transports: sinew::transport_names().iter().map(|name| try_out(name)).collect::<Result<_, _>>()?,
        missing: missing(),
        verbs: Verbs::look(),
        machine: machine(),
        options: args.options.then(option_rows),
    };
    if args.json {
        let text = serde_json::to_string(&info).map_err(|error| Failure::failed(error.to_string()))?;
        return print(&format!("{text}\n"));
    }
    print(&text(&info, Paint::for_stdout()))
}

/// Opens one transport, as an engine of this user does.
fn try_out(name: &'static str) -> Result<Tried, Failure> {
    let access = Access::default().with_domain(&format!("info-{}", std::process::id()));
    let place = Place::Transport(name.to_owned());
    let listens = access.engine(&place, true, Progress::Caller).and_then(|engine| {
        let endpoint = engine.endpoint("")?;
        Ok(endpoint.address().locators().to_vec())
    });
    match listens {
        Ok(listens) => Ok(Tried { name, works: true, listens, reason: None }),
        Err(failure) if failure.code() == crate::failure::USAGE => Err(failure),
        Err(failure) => {
            Ok(Tried { name, works: false, listens: Vec::new(), reason: Some(failure.text().to_owned()) })
        }
    }
}

fn missing() -> Vec<Missing> {
    let names = sinew::transport_names();
    let devices = |path: &str| -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let rdma = devices("/sys/class/infiniband");
    let rdma = if rdma.is_empty() {
        "no RDMA device here".to_owned()
    } else {
        format!("devices here: {}", rdma.join(", "))
    };
    let fabric = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib"]
        .iter()
        .find(|folder| std::path::Path::new(folder).join("libfabric.so.1").exists());
    let fabric = fabric.map_or_else(
        || "libfabric.so.1 is not installed".to_owned(),
        |folder| format!("{folder}/libfabric.so.1 is here"),
    );
    let build = |name| {
        if names.contains(&name) {
            None
        } else {
            Some("rebuild with the default features of the crate sinew")
        }
    };
    let left_out = ["shm", "uds", "tcp"].into_iter().filter_map(|name| {
        build(name).map(|remedy| Missing {
            name,
            what: "left out of this build",
            here: String::new(),
            remedy,
        })
    });
    let later = [
        ("verbs", "InfiniBand, RoCE, iWARP", rdma),
        ("fi", "libfabric providers", fabric),
        ("udp", "UDP", "needs nothing".to_owned()),
    ];
    let later =
        later.into_iter().filter(|(name, ..)| !names.contains(name)).map(|(name, what, here)| Missing {
            name,
            what,
            here,
            remedy: "no version has it yet; until then traffic goes over the transports above",
        });
    left_out.chain(later).collect()
}

fn machine() -> Machine {
    use rustix::process::{Resource, getrlimit};
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    Machine {
        kernel,
        processors_allowed: crate::cpus::allowed().len(),
        open_files_max: getrlimit(Resource::Nofile).current,
        file_size_max: getrlimit(Resource::Fsize).current,
        runtime_dir: runtime_dir(),
    }
}

/// Where sockets and this user's secret are.
fn runtime_dir() -> Option<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(set("SINEW_RUNTIME_DIR").unwrap_or_else(|| sinew::default_runtime_dir().display().to_string()))
}

fn option_rows() -> Vec<OptionOut> {
    let rows = sinew::option_tables().into_iter().flatten();
    rows.map(|row: &OptionRow| OptionOut {
        name: row.name,
        default: row.default,
        env: row.env,
        kind: row.kind.name(),
        cost: row.cost,
        help: row.help.split('\n').map(str::trim).collect::<Vec<_>>().join(" "),
        set_to: std::env::var(row.env).ok(),
    })
    .collect()
}

fn text(info: &Info, paint: Paint) -> String {
    let mut text = format!("sinew {}\n\n{}\n", info.version, paint.paint(Tone::Heading, "transports"));
    for tried in &info.transports {
        let word =
            if tried.works { paint.paint(Tone::Good, "works  ") } else { paint.paint(Tone::Bad, "missing") };
        let detail = match &tried.reason {
            Some(reason) => reason.trim_end().replace('\n', "\n                  "),
            None => tried.listens.join(" "),
        };
        text.push_str(&format!("  {:<6} {word}  {detail}\n", tried.name));
    }
    if !info.missing.is_empty() {
        text.push_str(&format!("\n{}\n", paint.paint(Tone::Heading, "what is missing")));
        for missing in &info.missing {
            let here = if missing.here.is_empty() { String::new() } else { format!(" ({})", missing.here) };
            text.push_str(&format!(
                "  {:<6} {}{here}\n         {}\n",
                missing.name, missing.what, missing.remedy
            ));
        }
    }
    let heading = paint.paint(Tone::Heading, "verbs devices (for programs of the crate sinew-verbs)");
    text.push_str(&format!("\n{heading}\n{}", info.verbs.text(paint)));
    let machine = &info.machine;
    let limit = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    text.push_str(&format!("\n{}\n", paint.paint(Tone::Heading, "this machine")));
    for (name, value) in [
        ("kernel", machine.kernel.clone()),
        ("processors allowed", machine.processors_allowed.to_string()),
        ("open files", limit(machine.open_files_max)),
        ("file size", limit(machine.file_size_max)),
        ("runtime directory", machine.runtime_dir.clone().unwrap_or_default()),
    ] {
        text.push_str(&format!("  {name:<19} {value}\n"));
    }
    let set: Vec<String> = option_rows()
        .iter()
        .filter_map(|row| row.set_to.as_ref().map(|value| format!("{}={value}", row.env)))
        .collect();
    let set = if set.is_empty() {
        "all options have their defaults".to_owned()
    } else {
        format!("set here: {}", set.join(" "))
    };
    text.push_str(&format!("\n{set}; `sinew info --options` lists them\n"));
    text
}

fn option_text(rows: &[OptionOut], paint: Paint) -> String {
    let width = |of: fn(&OptionOut) -> usize, least: usize| rows.iter().map(of).max().unwrap_or(0).max(least);
    let (name, default) = (width(|row| row.name.len(), 6), width(|row| row.default.len(), 7));
    let (env, kind) = (width(|row| row.env.len(), 11), width(|row| row.kind.len(), 4));
    let heading = format!(
        "{:<name$}  {:<default$}  {:<env$}  {:<kind$}  cost",
        "option", "default", "environment", "kind"
    );
    let mut text = format!("{}\n", paint.paint(Tone::Heading, &heading));
    for row in rows {
        let shown = if row.default.is_empty() { "-" } else { row.default };
        let (n, e, k, c) = (row.name, row.env, row.kind, row.cost);
        text.push_str(&format!("{n:<name$}  {shown:<default$}  {e:<env$}  {k:<kind$}  {c}\n"));
        text.push_str(&format!("    {}\n", paint.paint(Tone::Faint, &row.help)));
        if let Some(value) = &row.set_to {
            text.push_str(&format!("    set here to {value}\n"));
        }
    }
    text
}
