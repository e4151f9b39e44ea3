//! The second process of a measurement on one machine: started by the first, never outliving it.

use super::protocol::ENDPOINT;
use super::responder::{After, serve};
use crate::access::{Access, Flows, Place};
use crate::cpus;
use crate::failure::Failure;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use sinew::Progress;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Name of the hidden command.
pub(crate) const COMMAND: &str = "perf-responder";
/// How long the second process may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// What the first process says to the second.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Where to listen.
    #[arg(long)]
    place: Place,
    /// Domain of both processes.
    #[arg(long)]
    domain: String,
    /// Process that must live.
    #[arg(long)]
    parent: i32,
    /// Processor to stay on.
    #[arg(long)]
    cpu: Option<usize>,
}

/// The second process: prints its address and answers until the first says goodbye or is gone.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // The kernel ends this process with its parent; if the parent went before that was said, it ends here.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Failure::failed(format!("prctl: {errno}")))?;
    if getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(args.parent) {
        return Err(Failure::failed("the process that started this one is gone"));
    }
    if let Some(cpu) = args.cpu {
        cpus::pin(cpu).map_err(Failure::failed)?;
    }
    let access = Access { domain: args.domain.clone(), ..Access::default() };
    let made = access.engine(&args.place, true, Progress::Caller).and_then(|engine| {
        let endpoint = engine.endpoint(ENDPOINT)?;
        Ok((engine, endpoint))
    });
    let (engine, endpoint) = match made {
        Ok(made) => made,
        Err(failure) => {
            return crate::output::print(&format!("refused {}\n", failure.text().replace('\n', "\r")));
        }
    };
    crate::output::print(&format!("address {}\n", endpoint.address()))?;
    let (watched, left_alone) = (engine.clone(), Arc::new(AtomicBool::new(false)));
    let leaving = Arc::clone(&left_alone);
    std::thread::spawn(move || {
        let mut nothing = [0; 64];
        // The parent never writes: this ends when the parent's end of the pipe is closed.
        while std::io::stdin().lock().read(&mut nothing).is_ok_and(|len| len > 0) {}
        leaving.store(true, Ordering::Release);
        let _ = watched.close(Duration::ZERO);
    });
    let served = serve(&endpoint, After::End, |_| ());
    let _ = engine.close(GRACE);
    // What ends because the first process has gone is nobody's news.
    if left_alone.load(Ordering::Acquire) { Ok(()) } else { served }
}

/// The second process, as the first sees it. It ends when this is dropped.
pub(crate) struct Responder {
    child: Child,
    pub(crate) address: String,
}

impl Responder {
    /// Starts it, listening at `place`.
    pub(crate) fn start(
        place: &Place,
        domain: &str,
        cpu: Option<usize>,
        flows: &Flows,
    ) -> Result<Self, Failure> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("where is this program? {error}")))?;
        let mut command = Command::new(own);
        command.envs(flows.environment());
        let place = match place {
            Place::Anywhere => "all".to_owned(),
            Place::Transport(name) => name.clone(),
            Place::Tcp(address) => format!("tcp://{address}"),
        };
        command
            .args([COMMAND, "--place", &place, "--domain", domain])
            .args(["--parent", &std::process::id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let child = command
            .spawn()
            .map_err(|error| Failure::failed(format!("cannot start the second process: {error}")))?;
        let mut responder = Self { child, address: String::new() };
        let mut line = String::new();
        if let Some(stdout) = responder.child.stdout.take() {
            let read = BufReader::new(stdout).read_line(&mut line);
            read.map_err(|error| Failure::failed(format!("the second process cannot be heard: {error}")))?;
        }
        match line.trim_end_matches('\n').split_once(' ') {
            Some(("address", address)) => responder.address = address.to_owned(),
            Some(("refused", reason)) => return Err(Failure::failed(reason.replace('\r', "\n"))),
            _ => {
                let how = responder
                    .child
                    .wait()
                    .map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(Failure::failed(format!(
                    "the second process ended before it could listen ({how})"
                )));
            }
        }
        Ok(responder)
    }

    /// What became of it, if it has ended: says more than a lost peer.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let deadline = Instant::now() + Duration::from_millis(200);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(format!("the second process has ended: {status}")),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
